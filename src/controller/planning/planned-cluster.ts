import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../../model/clock.ts";
import { isHeld, wantedRelease, type Tenant } from "../../model/tenant.ts";
import type { Shard } from "../../model/shard.ts";
import type { NoPlaceReason } from "../../planner/actions.ts";
import { ClusterIndex } from "../../planner/cluster-index.ts";
import type { SnapshotShard, Snapshot, SnapshotLoads, SnapshotTenant } from "../../planner/snapshot.ts";
import type { CachedReader } from "../cached-reader.ts";
import type { IdleTenants } from "../sleep/idle-tenants.ts";
import { LONGEST_MOVE_DELAY_MS } from "../moves/ending.ts";
import { NAME_RESERVED, type Claims } from "../claims/claims.ts";

/** Reasons that only the planner gives, and takes back: `NoPlaceReason`. */
export const NO_PLACE: ReadonlySet<string> = new Set<NoPlaceReason>(["MaxShardsReached", "ShardFailed"]);

interface Surroundings {
  clock: Clock;
  /** Absent: every tenant is in use. */
  idle?: IdleTenants;
  /** Absent: no tenant has a rival. */
  claims?: Claims;
  /** Absent: nothing is known of any load. */
  loads?: SnapshotLoads;
}

/** What the planner needs of a cluster, as a whole. */
export function snapshotOf(tenants: Iterable<Tenant>, shards: Iterable<Shard>, around: Surroundings): Snapshot {
  const present = [...shards];
  const releases = new Map(present.map(({ metadata, spec }) => [metadata.name, spec.release]));
  const views = [...tenants].map((tenant) => tenantView(tenant, around, (shard) => releases.get(shard)));
  return {
    now: around.clock.now(),
    tenants: views.filter((view) => view !== undefined),
    shards: present.map((shard) => shardView(shard, around.clock)),
    ...(around.loads ? { loads: around.loads } : {}),
  };
}

/** The planner's index of what a reader has: brought up to date by what changed, so that a plan does not look at every tenant. */
export class PlannedCluster {
  readonly index = new ClusterIndex();
  readonly #reader: CachedReader;
  readonly #around: Surroundings;
  readonly #tenants = new Set<string>();
  readonly #shards = new Set<string>();
  readonly #withoutPlace = new Set<string>();
  readonly #keeping = new Set<string>();

  /** @param reader not opened yet: all that it reads is a change */
  constructor(reader: CachedReader, around: Surroundings) {
    this.#reader = reader;
    this.#around = around;
    if (around.loads) this.index.loads = around.loads;
    around.claims?.onChange((name) => this.#tenants.add(name));
    around.idle?.onChange((name) => this.#tenants.add(name));
    reader.onChange((kind, name) => {
      if (kind === "Tenant") this.#tenants.add(name);
      if (kind === "Shard") this.#shards.add(name);
    });
  }

  /** Takes in what changed since the last time. @returns whether any of it is something to the planner */
  update(): boolean {
    let changed = false;
    for (const name of this.#shards) changed = this.#updateShard(name) || changed;
    this.#shards.clear();
    for (const name of this.#tenants) changed = this.#updateTenant(name) || changed;
    this.#tenants.clear();
    return changed;
  }

  /** Tenants whose reason is one of the planner's. */
  withoutPlace(): string[] {
    return [...this.#withoutPlace];
  }

  /** Shards that say why they keep their tenants. */
  keeping(): string[] {
    return [...this.#keeping];
  }

  #updateShard(name: string): boolean {
    const before = this.index.shardByName.get(name);
    const shard = this.#reader.get("Shard", name);
    const view = shard && shardView(shard, this.#around.clock);
    if (shard?.status.keeps) this.#keeping.add(name);
    else this.#keeping.delete(name);
    // Most changes of a shard, its load for one, are nothing to the planner.
    if (isDeepStrictEqual(before, view)) return false;
    if (view) this.index.setShard(view);
    else this.index.removeShard(name);
    // Who names no release has that of the shard.
    if (before?.release !== view?.release) for (const tenant of this.#reader.tenantsOf(name)) this.#tenants.add(tenant);
    return true;
  }

  #updateTenant(name: string): boolean {
    const tenant = this.#reader.get("Tenant", name);
    const view = tenant && tenantView(tenant, this.#around, (shard) => this.#reader.get("Shard", shard)?.spec.release);
    const waited = this.#withoutPlace.delete(name);
    const waits = tenant !== undefined && NO_PLACE.has(tenant.status.reason);
    if (waits) this.#withoutPlace.add(name);
    if (isDeepStrictEqual(this.index.tenant(name), view)) return waits !== waited;
    if (view) this.index.setTenant(view);
    else this.index.removeTenant(name);
    return true;
  }
}

/** Undefined for a tenant that nobody has given a release yet: there is nothing to be planned for it. */
function tenantView(
  tenant: Tenant,
  around: Surroundings,
  releaseOf: (shard: string) => string | undefined,
): SnapshotTenant | undefined {
  const { metadata, spec, status } = tenant;
  const { claims, clock, idle } = around;
  const asleep = status.phase === "Asleep";
  const fallingAsleep = status.phase === "FallingAsleep" || idle?.isAsked(metadata.name) === true;
  const release = wakesWith(tenant) || releaseOf(status.shard ?? "");
  if (release === undefined) return undefined;
  return {
    name: metadata.name,
    release,
    shard: status.shard,
    move: status.move && { from: status.move.from, to: status.move.to },
    // A tenant that is suspended, to be renamed, to be dedicated, to be deleted, or that asks for what another has, is not the planner's business.
    deleting:
      metadata.deletionTimestamp !== undefined ||
      spec.dedicated !== undefined ||
      isHeld(tenant) ||
      fallingAsleep ||
      status.reason === NAME_RESERVED ||
      claims?.blockingConflictOf(tenant) !== undefined,
    ...(status.quarantine ? { isolated: true } : {}),
    ...(spec.isolation === "dedicated" ? { dedicated: true } : {}),
    ...(status.heavy || spec.placement?.isolate ? { heavy: true } : {}),
    ...(spec.placement ? { placement: spec.placement } : {}),
    ...(status.balanced ? { balanced: { ...status.balanced, at: clock.past(status.balanced.at) } } : {}),
    refusedRelease: status.refusedRelease?.release,
    moveNotBefore:
      status.moveNotBefore === undefined ? undefined : clock.end(status.moveNotBefore, LONGEST_MOVE_DELAY_MS),
    // A pin says where it was moved to: it holds nowhere else.
    ...(asleep ? { asleep: wakeTimeOf(tenant) } : {}),
    ...(fallingAsleep ? { fallingAsleep } : {}),
    ...(status.wake && !asleep && !fallingAsleep ? { waking: { due: status.wake.reason === "due" } } : {}),
    ...(status.shard === undefined && !asleep
      ? { waitingSince: Date.parse(status.wake?.requestedAt ?? metadata.creationTimestamp) }
      : {}),
    ...(fallingAsleep ? {} : idleView(tenant, around)),
    pinnedUntil: pinnedUntil(tenant),
  };
}

function pinnedUntil({ spec, status }: Tenant): number | undefined {
  const { pin, shard } = status;
  const times = [pin?.shard === shard ? pin?.until : undefined, spec.placement?.doNotMoveUntil];
  const known = times.flatMap((time) => (time === undefined ? [] : [Date.parse(time)]));
  return known.length === 0 ? undefined : Math.max(...known);
}

/** What has been found to be impossible for a sleeping tenant's database is not tried with it. */
function wakesWith(tenant: Tenant): string {
  const { refusedRelease, schemaRelease, shard } = tenant.status;
  const wanted = wantedRelease(tenant);
  return shard === undefined && refusedRelease?.release === wanted && schemaRelease !== undefined
    ? schemaRelease
    : wanted;
}

function wakeTimeOf({ status }: Tenant): { wakeAt?: number } {
  const { nextWake } = status.sleep ?? {};
  return nextWake === undefined ? {} : { wakeAt: Date.parse(nextWake.at) };
}

/** A use within so short a time of a start is the start itself. */
const START_MS = 2_000;

/** Nothing for a tenant that is in use, or that is not to sleep. */
function idleView({ metadata, spec, status }: Tenant, { idle, clock }: Surroundings): Pick<SnapshotTenant, "idle"> {
  const facts = idle?.get(metadata.name);
  const { phase, move, transition, quarantine, awake } = status;
  const isAtRest = phase === "Running" && !move && !transition && !quarantine && spec.dedicated === undefined;
  if (!facts || !isAtRest || spec.hibernation?.mode === "Never") return {};
  const awakeSince = clock.past(awake?.since ?? metadata.creationTimestamp);
  const afterSeconds = spec.hibernation?.afterIdleSeconds;
  return {
    idle: {
      ...facts,
      awakeSince,
      ...(awake?.reason === "due" && facts.since <= awakeSince + START_MS ? { wokenByTime: true } : {}),
      ...(afterSeconds === undefined ? {} : { afterSeconds }),
    },
  };
}

function shardView({ metadata, spec, status }: Shard, clock: Clock): SnapshotShard {
  return {
    name: metadata.name,
    release: spec.release,
    phase: metadata.deletionTimestamp === undefined ? status.phase : "Stopping",
    drain: spec.drain,
    lastAssignmentChange: clock.past(status.lastAssignmentChange ?? metadata.creationTimestamp),
    ...(status.lastSleepOrWake ? { lastSleepOrWake: clock.past(status.lastSleepOrWake) } : {}),
    grownAt: clock.past(status.drainCalledOffAt ?? metadata.creationTimestamp),
  };
}
