import { Counter, type Registry } from "prom-client";

export interface TenantCounterOptions {
  name: string;
  help: string;
  /** Beside `tenant`. */
  label: string;
  hasRoute: (tenant: string) => boolean;
}

/**
 * A counter by tenant and one more label. Requests in flight outlive their tenant's route: what they count afterwards is dropped, as it would
 * bring back the series of a tenant that is gone. Counted at each request, which is why it does not go through the library's labels.
 */
export class TenantCounter<Value extends string> {
  readonly #counts = new Map<string, Map<string, number>>();
  readonly #hasRoute: (tenant: string) => boolean;

  constructor(registry: Registry, { name, help, label, hasRoute }: TenantCounterOptions) {
    this.#hasRoute = hasRoute;
    const counts = this.#counts;
    const counter = new Counter({
      name,
      help,
      labelNames: ["tenant", label],
      registers: [],
      collect() {
        this.reset();
        for (const [tenant, values] of counts)
          for (const [value, count] of values) this.inc({ tenant, [label]: value }, count);
      },
    });
    registry.registerMetric(counter);
  }

  inc(tenant: string, value: Value): void {
    let values = this.#counts.get(tenant);
    if (!values) {
      if (!this.#hasRoute(tenant)) return;
      this.#counts.set(tenant, (values = new Map()));
    }
    values.set(value, (values.get(value) ?? 0) + 1);
  }

  forget(tenant: string): void {
    this.#counts.delete(tenant);
  }
}
