import { matches, parseSelector, type Labels, type Selector } from "../../model/labels.ts";
import { isLimited, type Actor } from "../../model/role.ts";
import type { Tenant } from "../../model/tenant.ts";

interface Labelled {
  labels?: Labels | undefined;
}

/** The tenants that whoever asks may see: all, or those of its selector. */
export class Scope {
  /** Tells one scope from another. */
  readonly key: string;
  readonly #selector: Selector | undefined;

  private constructor(selector?: string) {
    this.key = selector ?? "";
    this.#selector = selector === undefined ? undefined : parseSelector(selector);
  }

  static readonly all = new Scope();

  static of(actor: Actor | undefined): Scope {
    if (!actor || !isLimited(actor.role)) return Scope.all;
    // No limited role is without one; should one be, then it is of no tenant.
    return new Scope(actor.tenants ?? "no-tenant,!no-tenant");
  }

  get isAll(): boolean {
    return this.#selector === undefined;
  }

  /** @param spec of a tenant */
  includes(spec: Labelled): boolean {
    return this.#selector === undefined || matches(this.#selector, spec.labels);
  }

  /** Whether a label decides which tenants these are. */
  isLimitedBy(key: string): boolean {
    return this.#selector?.some((part) => part.key === key) ?? false;
  }

  /** Those of them that are in it, by name. */
  among(tenants: Iterable<Tenant>): Map<string, Tenant> {
    const found = new Map<string, Tenant>();
    for (const tenant of tenants) if (this.includes(tenant.spec)) found.set(tenant.metadata.name, tenant);
    return found;
  }
}
