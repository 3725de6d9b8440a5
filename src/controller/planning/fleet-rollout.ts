import { timeText, type Clock } from "../../model/clock.ts";
import { forgetRefusedRelease, isSuspended, wantedRelease, type Tenant } from "../../model/tenant.ts";
import type { ClusterEvent } from "../../model/event.ts";
import type { Fleet, FleetPhase, FleetStatus } from "../../model/fleet.ts";
import type { Shard } from "../../model/shard.ts";
import type { NoPlaceReason } from "../../planner/actions.ts";
import { planRollout, type Follower } from "../../rollout/rollout.ts";
import { windowProblem } from "../../model/windows.ts";
import type { CachedReader } from "../cached-reader.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";

const NO_ROOM: NoPlaceReason = "MaxShardsReached";
/** A pass looks at all tenants, which takes a tenth of a second with 20,000. Counting them again may take at most this share of the time. */
const COUNTING_SHARE = 0.05;
/** However long the last pass took. */
const LONGEST_PAUSE_MS = 30_000;

/** Brings the fleet's release to the tenants that name none. What is decided in `src/rollout/` is written down here; the planner moves. */
export class FleetRollout {
  readonly #context: ControllerContext;
  readonly #reader: CachedReader;
  /** What the last pass that changed nothing had seen. */
  #seen = "";
  /** Until when nobody needs to count again. */
  #countedUntil = Number.NEGATIVE_INFINITY;
  /** Tenants that changed since the last pass. */
  #changed = new Set<string>();

  constructor(context: ControllerContext, reader: CachedReader) {
    this.#context = context;
    this.#reader = reader;
    reader.onChange((kind, name) => kind === "Tenant" && this.#changed.add(name));
  }

  /** @returns whether anything changed */
  async pass(): Promise<boolean> {
    const [fleet] = this.#reader.values("Fleet");
    // A rollout under way also goes on by time alone.
    const present = `${this.#reader.changesOf("Fleet")} ${this.#reader.changesOf("Tenant")}`;
    if (present === this.#seen && (!fleet || fleet.status.phase === "Idle")) return false;
    const begun = this.#context.clock.now();
    if (fleet && begun < this.#countedUntil && this.#isAtRest(fleet)) return false;
    const looked = this.#changed;
    this.#changed = new Set();
    let changed: boolean;
    try {
      changed = fleet ? await this.#roll(fleet) : await this.#withoutFleet();
    } catch (error) {
      // What could not be written is looked at again.
      for (const name of looked) this.#changed.add(name);
      throw error;
    }
    this.#seen = changed ? "" : present;
    const end = this.#context.clock.now();
    this.#countedUntil = end + Math.min((end - begun) / COUNTING_SHARE, LONGEST_PAUSE_MS);
    return changed;
  }

  /** Whether its rollout is over, for those that have changed as well. */
  #isAtRest({ metadata, spec, status }: Fleet): boolean {
    const isOver = status.phase === "Idle" && status.observedGeneration === metadata.generation;
    const hasRelease = (name: string) => {
      const tenant = this.#reader.get("Tenant", name);
      return !tenant || tenant.spec.release !== "" || tenant.status.fleetRelease === spec.release;
    };
    return isOver && [...this.#changed].every(hasRelease);
  }

  async #roll(fleet: Fleet): Promise<boolean> {
    const wrong = fleet.spec.rollout.windows.map(windowProblem).find((problem) => problem !== undefined);
    if (wrong !== undefined) {
      return this.#write(fleet, {
        ...fleet.status,
        phase: "Paused",
        reason: "InvalidWindow",
        message: `spec.rollout.windows: ${wrong}`,
      });
    }
    const tenants = [...this.#reader.values("Tenant")].filter((tenant) => this.#follows(tenant));
    const { clock } = this.#context;
    const followers = tenants.map((tenant) => followerOf(tenant, clock, (shard) => this.#reader.get("Shard", shard)));
    const { give, status } = planRollout(fleet, followers, { now: clock.now(), wall: clock.wall() });
    let changed = false;
    for (const [name, release] of give) changed = (await this.#give(name, release)) || changed;
    return (await this.#write(fleet, status)) || changed;
  }

  async #give(name: string, release: string): Promise<boolean> {
    let given = false;
    await modify(this.#context.store, "Tenant", name, ({ spec, status }) => {
      given = spec.release === "" && status.fleetRelease !== release;
      if (!given) return false;
      status.fleetRelease = release;
      status.fleetReleaseSince = timeText(this.#context.clock.now());
      forgetRefusedRelease(status);
      delete status.moveNotBefore;
      status.moveFailures = 0;
      return true;
    });
    return given;
  }

  async #write(fleet: Fleet, status: Fleet["status"]): Promise<boolean> {
    const before = fleet.status;
    let changed = false;
    await modify(this.#context.store, "Fleet", fleet.metadata.name, (present) => {
      // Of an older spec.
      if (present.metadata.generation !== fleet.metadata.generation) return false;
      changed = JSON.stringify(sorted(present.status)) !== JSON.stringify(sorted(status));
      present.status = status;
      return changed;
    });
    if (changed && (before.phase !== status.phase || before.release !== status.release || before.wave !== status.wave))
      await recordEvent(this.#context, eventOf(fleet, status, before));
    return changed;
  }

  /** Nobody says which release they are to run. */
  async #withoutFleet(): Promise<boolean> {
    let changed = false;
    for (const tenant of this.#reader.values("Tenant")) {
      if (!this.#follows(tenant) || wantedRelease(tenant) !== "" || tenant.status.reason === "NoRelease") continue;
      await modify(this.#context.store, "Tenant", tenant.metadata.name, ({ status }) => {
        status.reason = "NoRelease";
        status.message = "it names no image tag, and there is no fleet to follow; set its image tag, or the fleet's";
      });
      changed = true;
    }
    return changed;
  }

  /** A tenant that is not placed because another has its name, or because it is suspended, says nothing about a release. */
  #follows(tenant: Tenant): boolean {
    const { spec, metadata } = tenant;
    const isOnShards = spec.dedicated === undefined && metadata.deletionTimestamp === undefined;
    return (
      spec.release === "" && isOnShards && !isSuspended(tenant) && !this.#context.claims.blockingConflictOf(tenant)
    );
  }
}

const FAILED: ReadonlySet<FleetPhase> = new Set(["Halted", "RollingBack", "RolledBack"]);
/** Phases whose events are called by them; a wave under way is one whatever its number. */
const CALLED_BY_PHASE: ReadonlySet<FleetPhase> = new Set([...FAILED, "Paused", "WaitingForWindow"]);

/** What is told of a rollout that came into another phase, wave or release. */
function eventOf({ metadata }: Fleet, status: FleetStatus, before: FleetStatus): Omit<ClusterEvent, "id" | "time"> {
  const { phase, release, previousRelease, message, total } = status;
  const type = FAILED.has(phase) ? "Warning" : "Normal";
  const object = `Fleet/${metadata.name}`;
  if (phase === "Idle" && message === "")
    return {
      type,
      reason: "RolloutDone",
      object,
      message: `${release} is what all ${total} tenants of the fleet have`,
    };
  if (before.release !== release && previousRelease !== undefined)
    return { type, reason: "RolloutStarted", object, message: `${previousRelease} → ${release}: ${message}` };
  const reason = phase === "Idle" ? "RolloutDone" : CALLED_BY_PHASE.has(phase) ? `Rollout${phase}` : "RolloutWave";
  return { type, reason, object, message: `${release} is rolled out: ${message}` };
}

function followerOf(
  { metadata, status }: Tenant,
  clock: Clock,
  shardOf: (name: string) => Shard | undefined,
): Follower {
  const shard = status.shard === undefined ? undefined : shardOf(status.shard);
  const asleep = status.phase === "Asleep";
  const { preparedAt, since } = status.sleep ?? {};
  const arrivedAt = asleep ? (preparedAt ?? since) : status.assignedAt;
  return {
    name: metadata.name,
    createdAt: Date.parse(metadata.creationTimestamp),
    given: status.fleetRelease,
    release: asleep ? status.schemaRelease : shard?.spec.release,
    // A sleeping one has been brought to its release by a preparer, which is all that can go wrong before somebody wants it.
    well: asleep || (status.phase === "Running" && status.move === undefined),
    broken: status.phase === "Failed",
    moveFailed:
      (status.moveFailures ?? 0) > 0 ||
      (status.refusedRelease !== undefined && status.refusedRelease.release === status.fleetRelease),
    givenAt: status.fleetReleaseSince === undefined ? undefined : clock.past(status.fleetReleaseSince),
    underWay:
      status.move !== undefined ||
      // Asleep: it waits for nothing but a preparer, of which there are few. Falling asleep and waking take a moment.
      asleep ||
      status.phase === "FallingAsleep" ||
      status.wake !== undefined ||
      status.reason === NO_ROOM ||
      (status.moveInterruptions ?? 0) > 0,
    arrivedAt: arrivedAt === undefined ? undefined : clock.past(arrivedAt),
  };
}

/** With its keys in order and without those that are undefined. */
function sorted(status: Fleet["status"]): unknown {
  return JSON.parse(
    JSON.stringify(Object.fromEntries(Object.entries(status).toSorted(([a], [b]) => (a < b ? -1 : 1)))),
  );
}
