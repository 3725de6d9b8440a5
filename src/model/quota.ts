import { z } from "zod";
import { UserError } from "./errors.ts";
import { MEASURED, parseBytes, SIZE, type MeasuredQuota } from "./quota-names.ts";

export { MEASURED, MEASURED_QUOTAS, parseBytes, type MeasuredQuota } from "./quota-names.ts";

/** Where nothing is said of it, a soft limit is this part of the hard one. */
const SOFT_PART = 0.8;
const count = () => z.int().min(0);
const bytes = () =>
  z
    .union([z.int().min(0), z.string().regex(SIZE)], { error: "bytes, or a size such as 500M, 10G or 1T" })
    .transform((given, context) => {
      const read = typeof given === "number" ? given : parseBytes(given);
      if (read === undefined) context.addIssue({ code: "custom", message: "it is too large" });
      return read ?? 0;
    });

function limits<T extends z.ZodType<number>>(size: () => T) {
  return {
    users: count().optional().describe("Accounts, without deactivated ones, guests and those of bridges."),
    monthlyActiveUsers: count().optional().describe("Users that were active in the month, as Synapse counts them."),
    mediaBytes: size().optional().describe("Media that its users uploaded, in total."),
    databaseBytes: size().optional().describe("Size of its database."),
  };
}

function quotas<T extends z.ZodType<number>>(size: () => T) {
  return z.strictObject({
    ...limits(size),
    uploadBytes: size().optional().describe("The largest upload."),
    requestsInFlight: z
      .int()
      .min(1)
      .max(10_000)
      .optional()
      .describe("Requests at its homeserver at once, in place of gateway.maxInFlightPerTenant."),
    cpuShare: z.number().min(0).max(1).optional().describe("Share of a core that it may take for long; 0: any."),
    remoteRoomComplexity: z
      .number()
      .min(0)
      .optional()
      .describe("The most complex room of another server that it may join, as Synapse measures it."),
    soft: z
      .strictObject(limits(size))
      .optional()
      .describe("From where on it is told; by default 80 % of what is refused beyond."),
  });
}

/** Over the wire sizes are bytes. */
export const QuotasSchema = quotas(count).meta({ id: "Quotas" });
export type Quotas = z.infer<typeof QuotasSchema>;

export const PLAN_NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Named sets of quotas, in the cluster's configuration. */
export const PlansSchema = z.record(
  z.string().regex(PLAN_NAME, 'a plan\'s name is 1 to 63 of a-z, 0-9 and "-"'),
  quotas(bytes),
);
export type Plans = Readonly<Record<string, Quotas>>;

/** What holds for a tenant: its own quotas, and for the others those of its plan. */
export function quotasOf(plans: Plans, { plan, quotas: own }: { plan?: string; quotas?: Quotas }): Quotas {
  const of = (plan === undefined ? undefined : planNamed(plans, plan)) ?? {};
  return { ...of, ...own, ...(of.soft || own?.soft ? { soft: { ...of.soft, ...own?.soft } } : {}) };
}

function planNamed(plans: Plans, name: string): Quotas | undefined {
  return Object.hasOwn(plans, name) ? plans[name] : undefined;
}

/** @throws UserError InvalidInput that names the plans there are */
export function checkPlan(plans: Plans, name: string): void {
  if (planNamed(plans, name)) return;
  const names = Object.keys(plans).toSorted();
  const there = names.length === 0 ? "the configuration has no plans" : `there are ${names.join(", ")}`;
  throw new UserError("InvalidInput", `there is no plan ${JSON.stringify(name.slice(0, 100))}: ${there}`);
}

export function hasPlan(plans: Plans, name: string): boolean {
  return planNamed(plans, name) !== undefined;
}

/** What a shard keeps, in its own words (docs/control-api.md); undefined: nothing. A tenant starts again where these change. */
export type ShardQuotas = Pick<Quotas, MeasuredQuota | "uploadBytes" | "remoteRoomComplexity">;
const OF_SHARDS = [...MEASURED, "uploadBytes", "remoteRoomComplexity"] as const;

export function shardQuotas(of: Quotas): ShardQuotas | undefined {
  const kept = OF_SHARDS.flatMap((quota) => (of[quota] === undefined ? [] : [[quota, of[quota]]]));
  return kept.length === 0 ? undefined : (Object.fromEntries(kept) as ShardQuotas);
}

export const QUOTA_STATES = {
  Soft: "the soft limit is reached: its operator is told, and all goes on",
  Hard: "the hard limit is reached: what would add to it is refused",
} as const;
export type QuotaState = keyof typeof QUOTA_STATES;

export type QuotaFigures = Partial<Record<MeasuredQuota, number>>;

export function softLimit(of: Quotas, quota: MeasuredQuota): number | undefined {
  const hard = of[quota];
  const soft = of.soft?.[quota] ?? (hard === undefined ? undefined : hard * SOFT_PART);
  return soft === undefined || hard === undefined ? soft : Math.min(soft, hard);
}

/** @param refused what was refused of late, whatever the figures say: an upload may be larger than what is left */
export function reachedQuotas(
  of: Quotas,
  figures: QuotaFigures,
  refused: ReadonlySet<MeasuredQuota> = new Set(),
): Partial<Record<MeasuredQuota, QuotaState>> {
  const found = MEASURED.flatMap((quota): [MeasuredQuota, QuotaState][] => {
    const [hard, soft, used] = [of[quota], softLimit(of, quota), figures[quota]];
    if (hard !== undefined && (refused.has(quota) || (used !== undefined && used >= hard))) return [[quota, "Hard"]];
    return soft !== undefined && used !== undefined && used >= soft ? [[quota, "Soft"]] : [];
  });
  return Object.fromEntries(found);
}

/** Whether anything of a tenant has to be measured. */
export function isMeasured(of: Quotas): boolean {
  return MEASURED.some((quota) => softLimit(of, quota) !== undefined);
}

/** One quota of a tenant, as people see it. */
export interface QuotaStanding {
  quota: string;
  hard?: number;
  soft?: number;
  used?: number;
  state?: QuotaState;
}
