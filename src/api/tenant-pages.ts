import { z } from "zod";
import { KeptOrder } from "../model/kept-order.ts";
import { LONGEST_SELECTOR, matches, parseSelector } from "../model/labels.ts";
import { TENANT_PHASES, wantedRelease, type Tenant, type TenantPhase } from "../model/tenant.ts";
import { Scope } from "./access/scope.ts";
import { wholeNumber } from "./schemas.ts";

/** More than fit on a screen at once. */
const LARGEST_PAGE = 500;
/** Those who scroll ask many times a second. */
const FRESH_MS = 1_000;
/** A few people at a table each. */
const MOST_RECENT = 8;

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
  /** What was found lately. */
  readonly #recently = new Map<string, { at: number; tenants: Promise<Found> }>();
  /** All tenants, by each column. */
  readonly #orders = Object.fromEntries(
    Object.entries(SORTS).map(([sort, keyOf]) => [sort, new KeptOrder(SORTS.name, keyOf)]),
  ) as Record<keyof typeof SORTS, KeptOrder<Tenant>>;

  constructor(list: () => Promise<Tenant[]>, now: () => number = () => performance.now()) {
    this.#list = list;
    this.#now = now;
  }

  /** @throws UserError InvalidInput for a selector that is none */
  async page(asked: TenantsAsked, scope = Scope.all): Promise<{ tenants: Tenant[]; total: number }> {
    const { offset, limit, ...found } = asked;
    // Those who want all do not come twice a second, and want what is there now.
    const { all, places } = await (limit === undefined ? this.#found(found, scope) : this.#recent(found, scope));
    const shown = places.slice(offset, limit === undefined ? undefined : offset + limit);
    return { tenants: shown.map((place) => all[place]!), total: places.length };
  }

  #recent(found: Omit<TenantsAsked, "offset" | "limit">, scope: Scope): Promise<Found> {
    const key = JSON.stringify([scope.key, found]);
    const now = this.#now();
    const known = this.#recently.get(key);
    if (known && now - known.at < FRESH_MS) return known.tenants;
    for (const [old, { at }] of this.#recently) if (now - at >= FRESH_MS) this.#recently.delete(old);
    const tenants = this.#found(found, scope);
    if (this.#recently.size < MOST_RECENT) this.#recently.set(key, { at: now, tenants });
    return tenants;
  }

  async #found(asked: Omit<TenantsAsked, "offset" | "limit">, scope: Scope): Promise<Found> {
    const isAsked = wish(asked, scope);
    const all = await this.#list();
    const isDescending = asked.order === "descending";
    const order =
      asked.sort === "name" ? byName(all.length, isDescending) : this.#orders[asked.sort].of(all, isDescending);
    if (!isAsked) return { all, places: order };
    // In the order of the list, as they are in memory; by another it takes three times as long.
    const isFound = all.map(isAsked);
    return { all, places: order.filter((place) => isFound[place]) };
  }
}

/** As they come. */
function byName(count: number, isDescending: boolean): number[] {
  return Array.from({ length: count }, (_, place) => (isDescending ? count - 1 - place : place));
}

interface Found {
  all: readonly Tenant[];
  /** In the order that is asked for. */
  places: readonly number[];
}

/** Undefined: any tenant. */
function wish(
  { selector, search, phase, release, shard }: Omit<TenantsAsked, "offset" | "limit">,
  scope: Scope,
): ((tenant: Tenant) => boolean) | undefined {
  const labels = selector === undefined ? [] : parseSelector(selector);
  const words = search?.trim().toLowerCase() ?? "";
  const wanted = phase === undefined ? undefined : new Set<string>(phase.split(","));
  const isAny = labels.length === 0 && words === "" && [phase, release, shard].every((one) => one === undefined);
  if (isAny && scope.isAll) return undefined;
  return (tenant) =>
    scope.includes(tenant.spec) &&
    (wanted === undefined || wanted.has(tenant.status.phase)) &&
    (release === undefined || wantedRelease(tenant) === release) &&
    (shard === undefined || tenant.status.shard === shard) &&
    (words === "" || tenant.metadata.name.includes(words) || tenant.spec.serverName.includes(words)) &&
    matches(labels, tenant.spec.labels);
}
