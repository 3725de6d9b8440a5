/** One tenant may take this part: however many of its requests wait, others find room. */
const TENANT_PART = 4;

/** How much memory is taken by requests that wait or whose bodies are kept, of all tenants together and of each. */
export class HeldMemory {
  readonly #limits: { maxHeldBytes: number };
  readonly #byTenant = new Map<string, number>();
  #total = 0;

  constructor(limits: { maxHeldBytes: number }) {
    this.#limits = limits;
  }

  get total(): number {
    return this.#total;
  }

  /** @returns false, and takes nothing, if there is no room */
  take(tenant: string, bytes: number): boolean {
    const { maxHeldBytes } = this.#limits;
    const own = (this.#byTenant.get(tenant) ?? 0) + bytes;
    if (this.#total + bytes > maxHeldBytes || own > maxHeldBytes / TENANT_PART) return false;
    this.#total += bytes;
    this.#byTenant.set(tenant, own);
    return true;
  }

  give(tenant: string, bytes: number): void {
    this.#total -= bytes;
    const own = (this.#byTenant.get(tenant) ?? 0) - bytes;
    if (own > 0) this.#byTenant.set(tenant, own);
    else this.#byTenant.delete(tenant);
  }
}
