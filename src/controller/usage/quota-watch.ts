import { budgetOf } from "../../model/cpu-budget.ts";
import { timeText } from "../../model/clock.ts";
import { messageOf } from "../../model/errors.ts";
import {
  isMeasured,
  MEASURED,
  quotasOf,
  reachedQuotas,
  softLimit,
  type MeasuredQuota,
  type QuotaFigures,
  type Quotas,
  type QuotaStanding,
  type QuotaState,
} from "../../model/quota.ts";
import type { Tenant, TenantStatus } from "../../model/tenant.ts";
import { monthOf } from "../../model/usage-month.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { asItRuns } from "../start/configs.ts";
import { Rounds } from "./rounds.ts";
import { defined } from "../../model/defined.ts";

const TURN_EVERY_MS = 15_000;
/** One after the other: 40 connections a minute altogether. */
const MOST_AT_ONCE = 10;
/** What shards refuse does not wait for it. */
const READ_EVERY_MS = 600_000;
/** For how long something that was refused says that a limit is reached, whatever the figures are. */
const REFUSED_FOR_MS = 3_600_000;

type Reached = NonNullable<TenantStatus["quotas"]>;

export function quotasOfTenant({ reader, plans }: Pick<ControllerContext, "reader" | "plans">, name: string): Quotas {
  const tenant = reader.get("Tenant", name);
  return tenant ? quotasOf(plans, tenant.spec) : {};
}

/** The share of a core that a tenant may take for long; 0: any. */
export function budgetOfTenant(
  context: Pick<ControllerContext, "reader" | "plans" | "cpuBudget">,
  name: string,
): number {
  return quotasOfTenant(context, name).cpuShare ?? budgetOf(context.cpuBudget, name);
}

/** All quotas of a tenant, with what there is of each. */
export function quotaStandings(context: ControllerContext, { metadata, spec, status }: Tenant): QuotaStanding[] {
  const of = quotasOf(context.plans, spec);
  const used: QuotaFigures = context.usage.get(metadata.name).quotas ?? {};
  const measured = MEASURED.map((quota) => ({
    quota,
    ...defined({
      hard: of[quota],
      soft: softLimit(of, quota),
      used: used[quota],
      state: status.quotas?.[quota]?.state,
    }),
  })).filter(({ hard, soft }) => hard !== undefined || soft !== undefined);
  const others = (["uploadBytes", "requestsInFlight", "cpuShare", "remoteRoomComplexity"] as const).flatMap((quota) =>
    of[quota] === undefined ? [] : [{ quota, hard: of[quota] }],
  );
  return [...measured, ...others];
}

/**
 * Says when a tenant comes near a limit, and when it has reached it. What is refused there is refused by its shard, which counts on its own; here
 * its database is asked from time to time, so that there is a warning before.
 */
export class QuotaWatch {
  readonly #context: ControllerContext;
  readonly #rounds: Rounds;
  /** Also of those that could not be asked. */
  readonly #askedAt = new Map<string, number>();
  readonly #refusals = new Map<string, Map<string, { count: number; at?: number }>>();

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#rounds = new Rounds(context.clock, TURN_EVERY_MS, () => this.turn());
  }

  start(): void {
    this.#rounds.start();
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async turn(): Promise<void> {
    const { reader, plans, log } = this.#context;
    try {
      const concerned = [...reader.values("Tenant")].filter(
        ({ spec, status }) => isMeasured(quotasOf(plans, spec)) || status.quotas !== undefined,
      );
      const due = concerned.filter((tenant) => this.#isDue(tenant)).map(({ metadata }) => metadata.name);
      const isOpen = await this.#rounds.forFew(due, MOST_AT_ONCE, async (name) => {
        const tenant = reader.get("Tenant", name);
        if (tenant) await this.#read(tenant);
      });
      if (!isOpen) return;
      for (const { metadata } of concerned) await this.#judge(metadata.name);
      for (const known of [this.#askedAt, this.#refusals])
        for (const name of known.keys()) if (!reader.get("Tenant", name)) known.delete(name);
    } catch (error) {
      log.warn({ why: messageOf(error) }, "cannot look at tenants' quotas; tried again later");
    }
  }

  /** A tenant that runs changes; of one that does not, one look is enough. */
  #isDue({ metadata, spec, status }: Tenant): boolean {
    const { plans, clock, usage } = this.#context;
    const isThere = status.provisioned && metadata.deletionTimestamp === undefined;
    if (!isThere || status.move || status.transition || !isMeasured(quotasOf(plans, spec))) return false;
    const asked = this.#askedAt.get(metadata.name);
    const isDue = asked === undefined || clock.now() - asked >= READ_EVERY_MS;
    if (status.phase === "Running") return isDue;
    return isDue && usage.get(metadata.name).quotas === undefined;
  }

  async #read(tenant: Tenant): Promise<void> {
    const { databases, clock, usage, log } = this.#context;
    const { name } = tenant.metadata;
    const now = clock.now();
    this.#askedAt.set(name, now);
    try {
      const runs = await asItRuns(this.#context, tenant);
      if (!runs) return;
      const month = monthOf(now);
      const { users, mediaBytes, databaseBytes, active } = await databases.readUsage(runs.tenant, runs.secrets, {
        months: [month],
        messagesFrom: Number.MAX_SAFE_INTEGER,
        receivedBefore: now,
      });
      const monthlyActiveUsers = active?.find((known) => known.month === month)?.activeUsers;
      usage.setQuotas(name, {
        ...defined({ users, mediaBytes, databaseBytes, monthlyActiveUsers }),
        at: timeText(now),
      });
    } catch (error) {
      log.debug({ tenant: name, why: messageOf(error) }, "its database does not tell what there is of its quotas");
    }
  }

  async #judge(name: string): Promise<void> {
    const { store, reader, plans, usage, clock } = this.#context;
    const tenant = reader.get("Tenant", name);
    if (!tenant) return;
    const of = quotasOf(plans, tenant.spec);
    const refused = this.#refusedOf(name);
    const { quotas: figures } = usage.get(name);
    // Before the first look, what an earlier controller found stands.
    if (!figures && refused.size === 0 && isMeasured(of)) return;
    const reached = reachedQuotas(of, figures ?? {}, refused);
    if (isSame(tenant.status.quotas, reached)) return;
    const now = timeText(clock.now());
    let before: Reached = {};
    const written = await modify(store, "Tenant", name, ({ status }) => {
      before = status.quotas ?? {};
      const next = MEASURED.flatMap((quota) => {
        const state = reached[quota];
        const known = before[quota];
        return state === undefined ? [] : [[quota, known?.state === state ? known : { state, since: now }] as const];
      });
      if (next.length === 0) delete status.quotas;
      else status.quotas = Object.fromEntries(next);
    });
    if (written) await this.#tell(name, of, before, reached);
  }

  #refusedOf(name: string): ReadonlySet<MeasuredQuota> {
    const { usage, clock } = this.#context;
    const known = this.#refusals.get(name) ?? new Map<string, { count: number; at?: number }>();
    this.#refusals.set(name, known);
    const now = clock.now();
    const counts = usage.get(name).refused ?? {};
    for (const [quota, count] of Object.entries(counts)) {
      const before = known.get(quota);
      // After a start it counts from nothing.
      const isMore = count > (before === undefined || before.count > count ? 0 : before.count);
      known.set(quota, { count, ...(isMore ? { at: now } : before?.at === undefined ? {} : { at: before.at }) });
    }
    return new Set(
      MEASURED.filter((quota) => {
        const at = known.get(quota)?.at;
        return at !== undefined && now - at < REFUSED_FOR_MS;
      }),
    );
  }

  async #tell(
    name: string,
    of: Quotas,
    before: Reached,
    reached: Partial<Record<MeasuredQuota, QuotaState>>,
  ): Promise<void> {
    const { quotas: figures } = this.#context.usage.get(name);
    const object = `Tenant/${name}`;
    for (const quota of MEASURED) {
      const [was, is] = [before[quota]?.state, reached[quota]];
      if (was === is) continue;
      const used = figures?.[quota];
      const has = used === undefined ? "" : `, and has ${used}`;
      if (is === "Hard")
        await recordEvent(this.#context, {
          type: "Warning",
          reason: "QuotaReached",
          object,
          message: `${name} may have ${of[quota]} ${quota}${has}: what would add to them is refused`,
        });
      else if (is === "Soft" && was === undefined)
        await recordEvent(this.#context, {
          type: "Warning",
          reason: "QuotaNear",
          object,
          message: `${name} is to have fewer than ${softLimit(of, quota)} ${quota}${has}; ${of[quota] === undefined ? "none are refused" : `beyond ${of[quota]} they are refused`}`,
        });
      else if (is === undefined)
        await recordEvent(this.#context, {
          type: "Normal",
          reason: "QuotaKept",
          object,
          message: `${name} is below its limit of ${quota} again`,
        });
    }
  }
}

function isSame(present: Reached | undefined, next: Partial<Record<MeasuredQuota, QuotaState>>): boolean {
  return MEASURED.every((quota) => present?.[quota]?.state === next[quota]);
}
