import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Policy } from "../../src/model/policy.ts";
import { plan } from "../../src/planner/plan.ts";
import type { SnapshotShard } from "../../src/planner/snapshot.ts";
import { NOW, planned, shard, SMALL, snapshot, tenant, tenantsOn, V2 } from "./builders.ts";
import { expectLawful } from "./laws.ts";
import { Simulator } from "./simulator.ts";

const [A, B, C] = [`${V2}-0`, `${V2}-1`, `${V2}-2`] as const;
/** Tenants woke there, or fell asleep, a second ago. */
const restless = (name: string, over: Partial<SnapshotShard> = {}) =>
  shard(name, { lastSleepOrWake: NOW - 1_000, ...over });

describe("shards whose tenants wake and fall asleep all the time", () => {
  it("are consolidated, and leave a place for the next that wakes", () => {
    const two = [restless(A), restless(B)];
    expect(planned(snapshot(two, tenantsOn(A, 1), tenantsOn(B, 1)))).toEqual([`drain ${B}`]);
    const full = snapshot(two, tenantsOn(A, 2), tenantsOn(B, 1));
    expect(planned(full)).toEqual([]);
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 2), tenantsOn(B, 1)))).toEqual([`drain ${B}`]);
  });

  it("count those that wake in the same plan", () => {
    const wakes = tenant("w", { waking: { due: false }, waitingSince: NOW });
    const given = snapshot([restless(A), restless(B)], tenantsOn(A, 1), tenantsOn(B, 1), wakes);
    expect(planned(given)).toEqual([`assign w ${A}`]);
    const roomy = { maxTenantsPerShard: 4, avgShardsLoadRedistributionThreshold: 3 };
    expect(planned(given, roomy)).toEqual([`assign w ${A}`, `drain ${B}`]);
  });

  it("are consolidated while some fall asleep", () => {
    const falls = tenant("f", { shard: A, deleting: true, fallingAsleep: true });
    const given = snapshot([restless(A), restless(B)], falls, tenantsOn(B, 1));
    expect(planned(given)).toEqual([`drain ${B}`]);
  });

  it("are left alone for ten times as long after one was made, or a drain was called off", () => {
    const young = [restless(A), restless(B, { grownAt: NOW - 299_000 })];
    expect(planned(snapshot(young, tenantsOn(A, 1), tenantsOn(B, 1)))).toEqual([]);
    const older = [restless(A), restless(B, { grownAt: NOW - 300_000 })];
    expect(planned(snapshot(older, tenantsOn(A, 1), tenantsOn(B, 1)))).toEqual([`drain ${B}`]);
  });

  it("are left alone while something else happens", () => {
    const changed = [restless(A, { lastAssignmentChange: NOW - 29_000 }), restless(B)];
    expect(planned(snapshot(changed, tenantsOn(A, 1), tenantsOn(B, 1)))).toEqual([]);
  });

  it("lose an empty one only where the others have a place left for the next that wakes", () => {
    expect(planned(snapshot([restless(A), restless(B)], tenantsOn(A, 2)))).toEqual([`stop ${B} Unused`]);
    expect(planned(snapshot([restless(A), restless(B)], tenantsOn(A, 3)))).toEqual([]);
    const three = [restless(A), restless(B), restless(C)];
    expect(planned(snapshot(three, tenantsOn(A, 3)))).toEqual([`stop ${C} Unused`]);
  });
});

const POLICY: Policy = {
  ...SMALL,
  maxTenantsPerShard: 10,
  maxShardsPerSynapseImageTag: 6,
  avgShardsLoadRedistributionThreshold: 8,
  hibernation: { afterIdleSeconds: 40, minAwakeSeconds: 30, maxConcurrentWakes: 8 },
};
const STEP = 5;

/** What was made or kept, and what was given up, and when. */
interface Turn {
  at: number;
  grows: boolean;
}

/** Wakes tenants, as many every five seconds as `wakes` says, and carries out what is planned. */
function run(world: Simulator, wakes: readonly number[]): Turn[] {
  const turns: Turn[] = [];
  let next = 0;
  for (const count of wakes) {
    for (let i = 0; i < count; i++) world.happen({ kind: "wake", pick: next++ * 7 });
    const before = world.snapshot();
    const actions = plan(before, world.policy);
    expectLawful(before, world.policy, actions);
    for (const action of actions) {
      world.apply(action);
      const grows = action.type === "CreateShard" || action.type === "CancelDrain";
      const shrinks = action.type === "DrainShard" || (action.type === "StopShard" && action.reason === "Unused");
      if (grows || shrinks) turns.push({ at: world.now, grows });
    }
    world.pass(STEP);
  }
  return turns;
}

function tenants(count: number): Simulator {
  const world = new Simulator(POLICY, [V2]);
  world.happen({ kind: "add", count, release: V2 });
  return world;
}

describe("over hours in which no minute passes without a wake", () => {
  it("shards that a busy time needed are given up in a calmer one", () => {
    const world = tenants(60);
    const minutes = (count: number) => (60 / STEP) * count;
    run(
      world,
      Array.from({ length: minutes(20) }, () => 4),
    );
    const most = world.shards.length;
    expect(most).toBeGreaterThanOrEqual(4);
    // One every five seconds is awake for fifty at least: two shards are enough for those.
    run(
      world,
      Array.from({ length: minutes(60) }, () => 1),
    );
    expect(world.shards.length).toBeLessThanOrEqual(2);
  });

  it("none is given up sooner than ten times the rest after one was needed, and the turns are few", () => {
    const story = fc.array(fc.record({ steps: fc.integer({ min: 1, max: 90 }), wakes: fc.nat(5) }), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(fc.integer({ min: 5, max: 60 }), story, (count, phases) => {
        const world = tenants(count);
        // At least one falls asleep or wakes in any time of rest.
        const wakes = phases.flatMap(({ steps, wakes: some }) => Array.from({ length: steps }, () => 1 + some));
        const turns = run(world, wakes);
        let grown = Number.NEGATIVE_INFINITY;
        let there = 0;
        for (const { at, grows } of turns) {
          if (grows) grown = at;
          else if (at - grown < 10 * POLICY.consolidateAfterSeconds * 1000) there++;
        }
        expect(there, "given up a moment after one was needed").toBe(0);
      }),
      { numRuns: 8 },
    );
  });
});
