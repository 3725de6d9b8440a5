import { z } from "zod";
import { LONGEST_SELECTOR, matches, parseSelector } from "../model/labels.ts";
import { TENANT_PHASES, wantedRelease, type Tenant, type TenantPhase } from "../model/tenant.ts";
import { Scope } from "./access/scope.ts";
import { wholeNumber } from "./schemas.ts";

/** More than fit on a screen at once. */
const LARGEST_PAGE = 500;
/** Those who scroll ask many times a second; sorting 100,000 tenants takes a tenth of one. */
const FRESH_MS = 1_000;
/** Orders that are kept at once: a few people at a table each. */
const MOST_ORDERS = 8;

const SORTS = {
  name: ({ metadata }: Tenant) => metadata.name,
  serverName: ({ spec }: Tenant) => spec.serverName,
  phase: ({ status }: Tenant) => status.phase,
  shard: ({ status }: Tenant) => status.shard ?? "",
  release: (tenant: Tenant) => wantedRelease(tenant),
  created: ({ metadata }: Tenant) => metadata.creationTimestamp,
} as const;

const phases = Object.keys(TENANT_PHASES) as TenantPhase[];

export const TenantsQuery = z.object({
  selector: z.string().max(LONGEST_SELECTOR).optional().describe("By labels: plan=small,region!=eu,trial,!internal"),
  search: z.string().max(100).optional().describe("What the name or the server name contains, in any case."),
  phase: z
    .string()
    .max(200)
    .refine((text) => text.split(",").every((phase) => phases.some((known) => known === phase)), {
      error: `phases, separated by commas, of ${phases.join(", ")}`,
    })
    .optional()
    .describe("In one of these phases, separated by commas."),
  release: z.string().max(50).optional().describe("That want this release."),
  shard: z.string().max(100).optional().describe("On this shard."),
  sort: z.enum(Object.keys(SORTS) as [keyof typeof SORTS]).default("name"),
  order: z.enum(["ascending", "descending"]).default("ascending"),
  offset: wholeNumber(1_000_000).default(0),
  limit: wholeNumber(LARGEST_PAGE).optional().describe("At most this many, from the offset on; absent: all."),
});
export type TenantsAsked = z.infer<typeof TenantsQuery>;

/** Tenants as tables ask for them: a window onto what is found, in an order. */
export class TenantPages {
  readonly #list: () => Promise<Tenant[]>;
  readonly #now: () => number;
  readonly #orders = new Map<string, { at: number; tenants: Promise<Tenant[]> }>();

  constructor(list: () => Promise<Tenant[]>, now: () => number = () => performance.now()) {
    this.#list = list;
    this.#now = now;
  }

  /** @throws UserError InvalidInput for a selector that is none */
  async page(asked: TenantsAsked, scope = Scope.all): Promise<{ tenants: Tenant[]; total: number }> {
    const { offset, limit, ...found } = asked;
    // Those who want all do not come twice a second, and want what is there now.
    const tenants = await (limit === undefined ? this.#found(found, scope) : this.#recent(found, scope));
    return { tenants: tenants.slice(offset, limit === undefined ? undefined : offset + limit), total: tenants.length };
  }

  #recent(found: Omit<TenantsAsked, "offset" | "limit">, scope: Scope): Promise<Tenant[]> {
    const key = JSON.stringify([scope.key, found]);
    const now = this.#now();
    const known = this.#orders.get(key);
    if (known && now - known.at < FRESH_MS) return known.tenants;
    for (const [old, { at }] of this.#orders) if (now - at >= FRESH_MS) this.#orders.delete(old);
    const tenants = this.#found(found, scope);
    if (this.#orders.size < MOST_ORDERS) this.#orders.set(key, { at: now, tenants });
    return tenants;
  }

  async #found(
    { selector, search, phase, release, shard, sort, order }: Omit<TenantsAsked, "offset" | "limit">,
    scope: Scope,
  ) {
    const labels = selector === undefined ? [] : parseSelector(selector);
    const words = search?.trim().toLowerCase() ?? "";
    const wanted = phase === undefined ? undefined : new Set<string>(phase.split(","));
    const tenants = (await this.#list()).filter(
      (tenant) =>
        scope.includes(tenant.spec) &&
        (wanted === undefined || wanted.has(tenant.status.phase)) &&
        (release === undefined || wantedRelease(tenant) === release) &&
        (shard === undefined || tenant.status.shard === shard) &&
        (words === "" || tenant.metadata.name.includes(words) || tenant.spec.serverName.includes(words)) &&
        matches(labels, tenant.spec.labels),
    );
    return ordered(tenants, SORTS[sort], order === "descending");
  }
}

/** They come by name, which decides between equals. */
function ordered(tenants: Tenant[], keyOf: (tenant: Tenant) => string, isDescending: boolean): Tenant[] {
  const sorted = tenants
    .map((tenant) => ({ tenant, key: keyOf(tenant) }))
    .toSorted((a, b) => (a.key === b.key ? 0 : a.key < b.key === isDescending ? 1 : -1));
  return sorted.map(({ tenant }) => tenant);
}
