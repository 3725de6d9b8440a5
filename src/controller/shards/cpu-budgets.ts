import { budgetOfTenant } from "../usage/quota-watch.ts";
import { timeText } from "../../model/clock.ts";
import { nextLoad, type Load } from "../../model/load.ts";
import { bytesPassed, type Holdings } from "../../model/tenant-usage.ts";
import type { Tenant, TenantStatus } from "../../model/tenant.ts";
import { isCalm, nextStanding, wantedShare, type CpuStanding } from "../../planner/cpu-budget.ts";
import type { ShardLoad } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";

interface Known {
  load: Load;
  /** For which part of the time its shard held its work back, smoothed, in place of a share of a core. */
  heldBack: Load;
  /** The share of a core that it is judged by; undefined before the second look. */
  wanted: number | undefined;
  /** Bytes that passed for it, smoothed: as seconds of a core are, so in place of them. */
  passing: Load;
  holdings: Holdings;
  /** Since when its share has been low. */
  calmSince?: number;
}

/**
 * What the tenants of one shard take of its processor time, and what follows from it (src/planner/cpu-budget.ts). The figures are in memory, as
 * they can be asked for again; what was decided is in the store, from where routes and the planner take it.
 */
export class CpuBudgets {
  readonly #context: ControllerContext;
  readonly #known = new Map<string, Known>();

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /** Of each tenant; `passing`: bytes a second. */
  *holdings(): Generator<[tenant: string, of: { holdings: Holdings; passing: number }]> {
    for (const [tenant, { holdings, passing }] of this.#known)
      yield [tenant, { holdings, passing: passing.share ?? 0 }];
  }

  async measured(shard: string, at: number, { tenants, process }: ShardLoad): Promise<void> {
    const { usage, reader } = this.#context;
    const hasNeighbours = [...reader.tenantsOf(shard)].length > 1;
    for (const name of this.#known.keys()) if (!Object.hasOwn(tenants, name)) this.#forget(name);
    for (const [name, figures] of Object.entries(tenants)) {
      const known = this.#next(name, figures, at, process.starvedSeconds);
      this.#known.set(name, known);
      const { holdings, load } = known;
      const { refused } = figures;
      usage.setRunning(name, { holdings, refused, ...(load.share === undefined ? {} : { cpuShare: load.share }) });
      await this.#judge(shard, name, known, hasNeighbours);
    }
  }

  /** The shard is not seen any more. */
  close(): void {
    for (const name of this.#known.keys()) this.#forget(name);
  }

  #forget(name: string): void {
    this.#known.delete(name);
    this.#context.usage.endRunning(name);
  }

  #next(name: string, figures: ShardLoad["tenants"][string], at: number, starvedSeconds: number): Known {
    const before = this.#known.get(name);
    const { cpuBudget } = this.#context;
    const { cpuSeconds, responseBytes, databaseRows, imageSeconds, cacheEntries, heldBackSeconds } = figures;
    // Its images take processors too, if not the shard's own.
    const look = { at, cpuSeconds: cpuSeconds + imageSeconds, starvedSeconds };
    const load = nextLoad(before?.load, look, cpuBudget.averageSeconds);
    const holdings = { responseBytes, databaseRows, imageSeconds, cacheEntries };
    const passed = { at, cpuSeconds: bytesPassed(holdings), starvedSeconds: 0 };
    const held = { at, cpuSeconds: heldBackSeconds, starvedSeconds: 0 };
    const heldBack = nextLoad(before?.heldBack, held, cpuBudget.averageSeconds);
    const wanted = load.share === undefined ? undefined : wantedShare(load.share, heldBack.share);
    const known = {
      load,
      heldBack,
      wanted,
      holdings,
      passing: nextLoad(before?.passing, passed, cpuBudget.averageSeconds),
    };
    const calm = wanted !== undefined && isCalm(wanted, budgetOfTenant(this.#context, name));
    return calm ? { ...known, calmSince: before?.calmSince ?? at } : known;
  }

  async #judge(shard: string, name: string, { load, wanted, calmSince }: Known, hasNeighbours: boolean): Promise<void> {
    const { store, reader, clock, cpuBudget, usage } = this.#context;
    const { at, share } = load;
    const { databaseShare = 0 } = usage.get(name);
    const database = cpuBudget.databasePerTenant > 0 ? databaseShare / cpuBudget.databasePerTenant : 0;
    const tenant = reader.get("Tenant", name);
    if (!tenant || share === undefined || wanted === undefined || !isSettledOn(tenant, shard)) return;
    const limits = { ...cpuBudget, budget: budgetOfTenant(this.#context, name) };
    const next = (status: TenantStatus) =>
      nextStanding(
        at,
        standingOf(status, (time) => clock.past(time)),
        { share: wanted, database, hasNeighbours, ...(calmSince === undefined ? {} : { calmSince }) },
        limits,
      );
    if (isSame(tenant.status, next(tenant.status))) return;
    const took =
      database * limits.budget > share
        ? `${percent(databaseShare)} of the time of a database connection, and its budget is ${percent(cpuBudget.databasePerTenant)}`
        : `${percent(share)} of a core of late, and its budget is ${percent(limits.budget)}`;
    let before: Pick<TenantStatus, "throttle" | "heavy"> = {};
    let after: TenantStatus | undefined;
    await modify(store, "Tenant", name, (present) => {
      after = undefined;
      const standing = next(present.status);
      if (!isSettledOn(present, shard) || isSame(present.status, standing)) return false;
      before = { throttle: present.status.throttle, heavy: present.status.heavy };
      write(present.status, standing, limits.budget);
      after = present.status;
      return true;
    });
    if (after) await this.#tell(name, before, after, took);
  }

  async #tell(
    name: string,
    before: Pick<TenantStatus, "throttle" | "heavy">,
    { throttle, heavy }: TenantStatus,
    took: string,
  ): Promise<void> {
    const object = `Tenant/${name}`;
    const say = (type: "Normal" | "Warning", reason: string, message: string) =>
      recordEvent(this.#context, { type, reason, object, message: `${name} ${message}` });
    if (throttle && (before.throttle?.part ?? 1) > throttle.part)
      await say(
        "Warning",
        "CpuThrottled",
        `took ${took}: gateways let ${percent(throttle.part)} of its requests in flight through`,
      );
    if (before.throttle && !throttle) await say("Normal", "CpuThrottleLifted", "is no longer throttled");
    if (heavy && !before.heavy)
      await say("Warning", "CpuBudgetExceeded", `gets a shard of its own if there is room: ${heavy.message}`);
    if (before.heavy && !heavy)
      await say("Normal", "CpuBudgetKept", "has been calm for long, and may share a shard again");
  }
}

/** Elsewhere it is another shard's, or about to be. */
function isSettledOn({ metadata, status }: Tenant, shard: string): boolean {
  return metadata.deletionTimestamp === undefined && status.shard === shard && !status.move && !status.transition;
}

function standingOf({ throttle, heavy }: TenantStatus, millisecondsOf: (time: string) => number): CpuStanding {
  return {
    ...(throttle && {
      throttle: {
        part: throttle.part,
        since: millisecondsOf(throttle.since),
        changedAt: millisecondsOf(throttle.changedAt),
      },
    }),
    ...(heavy && { heavySince: millisecondsOf(heavy.since) }),
  };
}

function isSame({ throttle, heavy }: TenantStatus, next: CpuStanding): boolean {
  return throttle?.part === next.throttle?.part && (heavy === undefined) === (next.heavySince === undefined);
}

function write(status: TenantStatus, { throttle, heavySince }: CpuStanding, budget: number): void {
  if (throttle)
    status.throttle = {
      part: throttle.part,
      since: timeText(throttle.since),
      changedAt: timeText(throttle.changedAt),
    };
  else delete status.throttle;
  if (heavySince === undefined) delete status.heavy;
  else
    status.heavy ??= {
      since: timeText(heavySince),
      message: `it has been throttled since ${status.throttle?.since ?? "long"}, as it would take more than ${percent(budget)} of a core`,
    };
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
