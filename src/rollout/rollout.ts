import type { Fleet, FleetPhase, FleetStatus } from "../model/fleet.ts";
import { wavesOf } from "./waves.ts";
import { windowAt } from "../model/windows.ts";

/** What a rollout needs to know of a tenant that follows the fleet. */
export interface Follower {
  name: string;
  /** Milliseconds since the epoch, as all times here. */
  createdAt: number;
  /** The release it has been given, if any. */
  given?: string;
  /** The release of its shard; undefined while it has none. */
  release?: string;
  /** It runs and is not on the move. */
  well: boolean;
  /** It cannot be started. */
  broken: boolean;
  /** A move to the release it has been given did not succeed, or was refused. */
  moveFailed: boolean;
  /** When it was given its release. */
  givenAt?: number;
  /** It is on the move, or waits for nothing but a free place: neither says anything of the release. */
  underWay: boolean;
  /** When it came to its shard. */
  arrivedAt?: number;
}

export interface RolloutDecision {
  /** Releases to be given, by tenant. */
  give: Map<string, string>;
  status: FleetStatus;
}

/**
 * How far a rollout goes now. Pure: all it goes by is the fleet's spec and status and how the tenants are, so it is the same
 * no matter who asks, and how often.
 *
 * A tenant that is not well when its turn comes is left where it is: it would neither show that the release is good nor that it is bad.
 */
export function planRollout(fleet: Fleet, followers: readonly Follower[], now: RolloutTime): RolloutDecision {
  return new Rollout(fleet, followers, now).plan();
}

export interface RolloutTime {
  /** In the order of the followers' times. */
  now: number;
  /** By the machine's clock, to which windows are bound. */
  wall: number;
}

class Rollout {
  readonly #fleet: Fleet;
  readonly #followers: readonly Follower[];
  readonly #now: number;
  readonly #wall: number;
  readonly #give = new Map<string, string>();
  readonly #target: string;
  readonly #previous: string | undefined;
  /** The spec is another than the one that the status is about. */
  readonly #fresh: boolean;
  readonly #waves: Follower[][];
  /** Who has failed, before anything is decided: who is sent back at once has failed all the same. */
  readonly #failed: string[];
  /** The wave under way; those before it have passed. */
  #wave: number;

  constructor(fleet: Fleet, followers: readonly Follower[], { now, wall }: RolloutTime) {
    const { status, spec, metadata } = fleet;
    this.#fleet = fleet;
    this.#followers = followers;
    this.#now = now;
    this.#wall = wall;
    this.#target = spec.release;
    this.#previous = previousOf(fleet);
    this.#fresh = status.observedGeneration !== metadata.generation;
    this.#waves = wavesOf(followers, spec.rollout);
    this.#failed = followers
      .filter((follower) => this.#previous !== undefined && this.#hasFailed(follower))
      .map(({ name }) => name)
      .toSorted();
    const sameRollout = status.release === this.#target;
    // A tenant that ended and left shortens the list.
    this.#wave = sameRollout ? Math.max(0, Math.min(status.wave, this.#waves.length - 1)) : 0;
  }

  plan(): RolloutDecision {
    this.#giveNewcomersOne();
    const ended = this.#endedBefore();
    if (ended) return ended === "Halted" ? this.#halted() : this.#rollBack();
    const { maxFailures, onFailure } = this.#fleet.spec.rollout;
    const finished = this.#wasFinished();
    // After it, whatever happens to a tenant has other causes.
    if (!finished && this.#failed.length >= maxFailures) {
      return onFailure === "RollBack" && this.#previous !== undefined ? this.#rollBack() : this.#halted();
    }
    this.#passWaves();
    const pending = this.#pending();
    const phase = finished ? "Idle" : this.#wave === 0 ? "Canary" : "Progressing";
    if (pending.length > 0) return this.#begin(pending, phase);
    if (finished || this.#isDone()) return this.#decide("Idle", "", this.#leftBehind());
    return this.#decide(phase, "", this.#waitsFor());
  }

  #begin(pending: Follower[], phase: FleetPhase): RolloutDecision {
    const { paused, windows } = this.#fleet.spec.rollout;
    const window = windowAt(windows, this.#wall);
    if (!paused && window.open) {
      for (const { name } of pending.slice(0, this.#room())) this.#give.set(name, this.#target);
      return this.#decide(phase, "", this.#waitsFor());
    }
    // A straggler does not restart the rollout.
    const finished = phase === "Idle";
    if (paused) {
      return this.#decide(finished ? phase : "Paused", "Paused", "spec.rollout.paused is true; nothing more is moved");
    }
    const next = window.next === undefined ? undefined : new Date(window.next).toISOString();
    const message = `${pending.length} tenants wait for the next maintenance window`;
    return this.#decide(finished ? phase : "WaitingForWindow", "WindowClosed", message, next);
  }

  #wasFinished(): boolean {
    const { phase, release } = this.#fleet.status;
    return phase === "Idle" && release === this.#target;
  }

  /** A tenant without a release gets what the most careful would give it: the old one until the canaries have passed. */
  #giveNewcomersOne(): void {
    const { release, phase } = this.#fleet.status;
    const first = release === "";
    const stopped = ["Halted", "RollingBack", "RolledBack"].includes(phase) && !this.#fresh;
    const proven = first || (release === this.#target && this.#wave > 0 && !stopped) || this.#previous === undefined;
    const finished = this.#wasFinished();
    for (const { name, given, release } of this.#followers) {
      if (given !== undefined) continue;
      // A tenant that ran before it followed the fleet keeps its release until its turn comes.
      this.#give.set(name, release ?? (proven || finished ? this.#target : this.#previous));
    }
  }

  #endedBefore(): "Halted" | "RolledBack" | undefined {
    if (this.#fresh) return undefined;
    const { phase } = this.#fleet.status;
    if (phase === "Halted") return "Halted";
    return phase === "RollingBack" || phase === "RolledBack" ? "RolledBack" : undefined;
  }

  /** Waves whose tenants have all arrived, and have been well for long enough, are passed. */
  #passWaves(): void {
    while (this.#wave < this.#waves.length - 1 && this.#hasPassed(this.#wave)) this.#wave += 1;
  }

  #hasPassed(wave: number): boolean {
    const soakMs = this.#fleet.spec.rollout.soakSeconds * 1000;
    return this.#waves
      .slice(0, wave + 1)
      .flat()
      .every((follower) => {
        // A failure that is one of the tolerated keeps nobody waiting.
        if (this.#isLeftBehind(follower) || this.#hasFailed(follower)) return true;
        if (!this.#hasArrived(follower)) return false;
        // Of waves that have passed once, nobody asks for how long they have been there: a tenant may move for other reasons.
        const isOfThisWave = this.#waves[wave]?.includes(follower);
        return !isOfThisWave || this.#now - (follower.arrivedAt ?? 0) >= soakMs;
      });
  }

  #isDone(): boolean {
    return this.#waves.length === 0 || this.#hasPassed(this.#waves.length - 1);
  }

  /** Those whose turn it is. */
  #pending(): Follower[] {
    return this.#waves
      .slice(0, this.#wave + 1)
      .flat()
      .filter((follower) => this.#given(follower) !== this.#target && !this.#isLeftBehind(follower));
  }

  #room(): number {
    const under = this.#followers.filter(
      (follower) => this.#given(follower) === this.#target && !this.#hasArrived(follower) && !this.#hasFailed(follower),
    );
    return Math.max(0, this.#fleet.spec.rollout.maxConcurrentMoves - under.length);
  }

  #halted(): RolloutDecision {
    const failed = this.#failed;
    const names = failed.length > 0 ? `: ${failed.slice(0, 5).join(", ")}${failed.length > 5 ? ", …" : ""}` : "";
    return this.#decide(
      "Halted",
      "TooManyFailures",
      `${failed.length} tenants failed with ${this.#target}${names}; nothing more is moved until the spec changes`,
    );
  }

  #rollBack(): RolloutDecision {
    const previous = this.#previous;
    if (previous === undefined) return this.#halted();
    const on = (follower: Follower) => this.#given(follower) === this.#target;
    const under = this.#followers.filter((f) => this.#given(f) === previous && f.release === this.#target).length;
    const room = Math.max(0, this.#fleet.spec.rollout.maxConcurrentMoves - under);
    const back = this.#followers.filter(on);
    for (const { name } of back.slice(0, room)) this.#give.set(name, previous);
    const isBack = back.length === 0 && under === 0;
    const message = isBack
      ? `${this.#target} failed; every tenant is on ${previous} again, until the spec changes`
      : `${this.#target} failed; tenants go back to ${previous}`;
    return this.#decide(isBack ? "RolledBack" : "RollingBack", "TooManyFailures", message);
  }

  #given(follower: Follower): string | undefined {
    return this.#give.get(follower.name) ?? follower.given;
  }

  #hasArrived(follower: Follower): boolean {
    return this.#given(follower) === this.#target && follower.release === this.#target && follower.well;
  }

  #hasFailed(follower: Follower): boolean {
    if (this.#given(follower) !== this.#target) return false;
    return follower.broken || follower.moveFailed || this.#isOverdue(follower);
  }

  /** As with an image that cannot be pulled, or a shard that crashes: nobody says that a move failed, it is only never done. */
  #isOverdue(follower: Follower): boolean {
    if (follower.given !== this.#target || follower.givenAt === undefined || follower.underWay) return false;
    const deadline = follower.givenAt + this.#fleet.spec.rollout.progressDeadlineSeconds * 1000;
    return !this.#hasArrived(follower) && this.#now >= deadline;
  }

  #isLeftBehind(follower: Follower): boolean {
    return follower.broken && this.#given(follower) !== this.#target;
  }

  #leftBehind(): string {
    const names = this.#followers.filter((follower) => this.#isLeftBehind(follower)).map(({ name }) => name);
    return names.length === 0 ? "" : `left on their release, as they do not run: ${names.toSorted().join(", ")}`;
  }

  #waitsFor(): string {
    return `wave ${this.#wave + 1} of ${this.#waves.length}: ${this.#arrivedCount()} of ${this.#followers.length} tenants have ${this.#target}`;
  }

  #arrivedCount(): number {
    return this.#followers.filter((follower) => this.#hasArrived(follower)).length;
  }

  #decide(phase: FleetPhase, reason: string, message: string, nextWindow?: string): RolloutDecision {
    const { status, metadata } = this.#fleet;
    const sticky = ["Halted", "RollingBack", "RolledBack"].includes(phase) && status.release === this.#target;
    return {
      give: this.#give,
      status: {
        phase,
        reason,
        message,
        observedGeneration: metadata.generation,
        release: this.#target,
        ...(this.#previous === undefined ? {} : { previousRelease: this.#previous }),
        wave: this.#wave,
        waves: this.#waves.length,
        updated: this.#arrivedCount(),
        total: this.#followers.length,
        // While they go back, what failed is no longer to be seen in them.
        failed: sticky && status.failed.length > 0 ? status.failed : this.#failed,
        ...(nextWindow === undefined ? {} : { nextWindow }),
      },
    };
  }
}

/** The release to go back to, and for newcomers until the new one is proven. */
function previousOf({ spec, status }: Fleet): string | undefined {
  if (status.release === "") return undefined;
  if (status.release === spec.release) return status.previousRelease;
  // A release whose rollout was not finished is not to be trusted; the one before it is, unless that is the new target.
  const unfinished = status.phase !== "Idle" && status.previousRelease !== undefined;
  return unfinished && status.previousRelease !== spec.release ? status.previousRelease : status.release;
}
