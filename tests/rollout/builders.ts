import { DEFAULT_ROLLOUT, type Fleet, newFleetStatus, type RolloutPolicy } from "../../src/model/fleet.ts";
import { type Follower, planRollout } from "../../src/rollout/rollout.ts";

export const POLICY: RolloutPolicy = { ...DEFAULT_ROLLOUT, waveSize: 2 };

/** A fleet and its tenants, with a clock of their own; `settle` is what the planner and the shards would do. */
export class SimulatedFleet {
  now = Date.UTC(2026, 0, 5, 12, 0, 0);
  readonly followers: Follower[] = [];
  readonly fleet: Fleet;
  /** Tenants that break with a release. */
  readonly breaksWith = new Map<string, string>();
  /** Tenants whose move to a release is rolled back. */
  readonly refuses = new Map<string, string>();
  /** Releases whose shards do not come up. */
  readonly absent = new Set<string>();

  constructor(release = "1", policy: Partial<RolloutPolicy> = {}) {
    this.fleet = {
      kind: "Fleet",
      metadata: { name: "fleet", resourceVersion: "1", generation: 1, creationTimestamp: new Date(0).toISOString() },
      spec: { release: release, rollout: { ...POLICY, ...policy } },
      status: newFleetStatus(),
    };
  }

  add(...names: string[]): this {
    for (const name of names)
      this.followers.push({
        name,
        createdAt: this.now + this.followers.length,
        well: false,
        broken: false,
        moveFailed: false,
        underWay: false,
      });
    return this;
  }

  set(change: (spec: Fleet["spec"]) => void): this {
    change(this.fleet.spec);
    this.fleet.metadata.generation += 1;
    return this;
  }

  /** One pass. @returns the names that were given a release */
  pass(): string[] {
    const { give, status } = planRollout(this.fleet, structuredClone(this.followers), {
      now: this.now,
      wall: this.now,
    });
    this.fleet.status = status;
    for (const [name, release] of give) {
      const follower = this.of(name);
      if (follower.given === release) continue;
      follower.given = release;
      follower.givenAt = this.now;
      follower.underWay = release !== follower.release && !this.absent.has(release);
      follower.moveFailed = false;
    }
    return [...give.keys()].toSorted();
  }

  /** Everybody who was given another release than they run goes there. */
  settle(only: (name: string) => boolean = () => true): void {
    for (const follower of this.followers) {
      if (follower.given === undefined || follower.given === follower.release || !only(follower.name)) continue;
      if (this.absent.has(follower.given)) continue;
      if (this.refuses.get(follower.name) === follower.given) {
        follower.moveFailed = true;
        continue;
      }
      follower.underWay = false;
      follower.release = follower.given;
      follower.arrivedAt = this.now;
      follower.broken = this.breaksWith.get(follower.name) === follower.given;
      follower.well = !follower.broken;
    }
  }

  wait(seconds: number): this {
    this.now += seconds * 1000;
    return this;
  }

  /** Passes, moves and time until nothing changes any more. */
  run(passes = 200, seconds = 30): this {
    for (let i = 0; i < passes; i++) {
      this.pass();
      this.settle();
      this.wait(seconds);
    }
    this.pass();
    return this;
  }

  of(name: string): Follower {
    const found = this.followers.find((follower) => follower.name === name);
    if (!found) throw new Error(`no tenant ${name}`);
    return found;
  }

  releases(): string {
    return this.followers.map(({ release }) => release ?? "-").join("");
  }
}
