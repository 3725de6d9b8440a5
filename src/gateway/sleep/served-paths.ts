/** What Synapse's listener serves: the first segments of paths, and the second ones where not all below is its own. docs/gateway.md names them. */
const SERVED: Record<string, ReadonlySet<string> | undefined> = {
  _matrix: new Set(["client", "federation", "key", "media", "static", "consent"]),
  _synapse: undefined,
  ".well-known": new Set(["matrix"]),
  health: undefined,
};
/** Of one tenant: paths of modules. */
const MAX_OWN = 16;

/** The first two segments of a path, as a server reads them. */
function headOf(target: string): [first: string, second: string] {
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  const [first = "", second = ""] = path.replace(/^\/+/, "").split("/", 2).map(decode);
  return [first, second];
}

function decode(segment: string): string {
  return segment.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** @returns whether a homeserver may have something at this path. What it has not is what scanners ask for. */
export function isServed(target: string): boolean {
  const [first, second] = headOf(target);
  if (first === "") return true;
  if (!Object.hasOwn(SERVED, first)) return false;
  return SERVED[first]?.has(second) ?? true;
}

/** Paths outside of these at which a tenant has answered all the same: modules may put something anywhere. */
export class OwnPaths {
  readonly #tenants = new Map<string, Set<string>>();

  /** @param status of its answer */
  saw(tenant: string, method: string, target: string, status: number): void {
    // Nearly all requests are done here. Synapse answers `OPTIONS` anywhere.
    if (status >= 400 || target.startsWith("/_matrix/") || method === "OPTIONS" || isServed(target)) return;
    const [first] = headOf(target);
    const own = this.#tenants.get(tenant) ?? new Set();
    if (own.size >= MAX_OWN || first.length > 100) return;
    this.#tenants.set(tenant, own.add(first));
  }

  serves(tenant: string, target: string): boolean {
    return isServed(target) || (this.#tenants.get(tenant)?.has(headOf(target)[0]) ?? false);
  }

  rename(former: string, to: string): void {
    const own = this.#tenants.get(former);
    if (own) this.#tenants.set(to, own);
    this.#tenants.delete(former);
  }

  forget(tenant: string): void {
    this.#tenants.delete(tenant);
  }
}
