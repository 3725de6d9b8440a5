import type { Tenant } from "../../model/tenant.ts";
import type { CachedReader } from "../cached-reader.ts";
import type { TenantChange } from "./cluster-service.ts";

/**
 * Every tenant as it is, then a mark, then each one as it changes. A listener that is slow misses states in between, never the last one: what
 * waits for it is a name per tenant, however often that changed.
 */
export async function* followTenants(
  reader: Pick<CachedReader, "values" | "get" | "onChange">,
  signal: AbortSignal | undefined,
): AsyncGenerator<TenantChange, void, undefined> {
  const changed = new Set<string>();
  let wake = () => {};
  const unlisten = reader.onChange((kind, name) => {
    if (kind !== "Tenant") return;
    changed.add(name);
    wake();
  });
  const onAbort = () => wake();
  signal?.addEventListener("abort", onAbort);
  const present = (tenant: Tenant): TenantChange => ({ type: "Present", tenant });
  try {
    for (const tenant of reader.values("Tenant")) {
      if (signal?.aborted) return;
      yield present(tenant);
    }
    yield { type: "Synced" };
    while (!signal?.aborted) {
      const [name] = changed;
      if (name === undefined) {
        await new Promise<void>((resolve) => (wake = resolve));
        continue;
      }
      changed.delete(name);
      const tenant = reader.get("Tenant", name);
      yield tenant ? present(tenant) : { type: "Gone", name };
    }
  } finally {
    unlisten();
    signal?.removeEventListener("abort", onAbort);
  }
}
