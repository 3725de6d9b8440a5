import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Policy } from "../../src/model/policy.ts";
import { changesTheWorld, type Action } from "../../src/planner/actions.ts";
import { plan } from "../../src/planner/plan.ts";
import { V1, V2 } from "./builders.ts";
import { expectLawful } from "./laws.ts";
import { Simulator, type Happening } from "./simulator.ts";

const VERSIONS = [V1, V2, "1.170.0"];
const RUNS = Number(process.env.PLANNER_RUNS ?? 400);

const policies: fc.Arbitrary<Policy> = fc.record({
  maxShardsPerSynapseImageTag: fc.integer({ min: 1, max: 4 }),
  maxTenantsPerShard: fc.integer({ min: 1, max: 5 }),
  avgShardsLoadRedistributionThreshold: fc.integer({ min: 0, max: 7 }),
  consolidateAfterSeconds: fc.constantFrom(0, 30),
  maxConcurrentMoves: fc.integer({ min: 1, max: 6 }),
  hibernation: fc.record({
    afterIdleSeconds: fc.constantFrom(0, 40, 90),
    minAwakeSeconds: fc.constantFrom(0, 30, 60),
    maxConcurrentWakes: fc.integer({ min: 1, max: 5 }),
  }),
  balancing: fc.record({
    cpuTarget: fc.constantFrom(0, 0.3, 0.6),
    averageSeconds: fc.constant(60),
    coolDownSeconds: fc.constantFrom(0, 30, 120),
    tenantRestSeconds: fc.constantFrom(0, 100, 3600),
    movesPerHour: fc.integer({ min: 0, max: 12 }),
  }),
});

const pick = fc.nat(1000);
const happenings: fc.Arbitrary<Happening> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("leave" as const), count: fc.integer({ min: 3, max: 12 }), pick }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("add" as const),
      count: fc.integer({ min: 1, max: 8 }),
      release: fc.constantFrom(...VERSIONS),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "delete" as const,
        "gone" as const,
        "upgrade" as const,
        "upgrade" as const,
        "moveByUser" as const,
        "drainByUser" as const,
        "moveFails" as const,
        "moveRefused" as const,
      ),
      pick,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("shard" as const),
      pick,
      to: fc.constantFrom("Lost" as const, "Failed" as const, "Ready" as const, "Starting" as const),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "quarantine" as const,
        "quarantine" as const,
        "lift" as const,
        "heavy" as const,
        "heavy" as const,
        "calm" as const,
        "dedicate" as const,
        "dedicate" as const,
        "share" as const,
      ),
      pick,
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "use" as const,
        "leaveAlone" as const,
        "wake" as const,
        "wake" as const,
        "fallsDue" as const,
        "keptAwake" as const,
      ),
      pick,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("load" as const),
      pick,
      share: fc.double({ min: 0, max: 0.5, noNaN: true }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("wish" as const),
      pick,
      other: pick,
      what: fc.constantFrom("shard" as const, "shard" as const, "apart" as const, "stay" as const, "nothing" as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("window" as const), closed: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("gateways" as const), canWake: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("policy" as const), change: policies }) },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant("time" as const), seconds: fc.constantFrom(1, 10, 60) }) },
);

/** Plans, checks the plan against the laws, and carries it out. */
function step(world: Simulator, seed: number): Action[] {
  const before = world.snapshot();
  const actions = plan(before, world.policy);
  expect(before, "the snapshot is left as it was").toEqual(world.snapshot());
  expectLawful(before, world.policy, actions);
  const mixed = { ...before, tenants: shuffled(before.tenants, seed), shards: shuffled(before.shards, seed + 1) };
  expect(plan(mixed, world.policy)).toEqual(actions);
  for (const action of actions) world.apply(action);
  return actions;
}

function shuffled<T>(items: T[], seed: number): T[] {
  const key = (index: number) => ((index + 1) * 2654435761 + seed * 40503) % 4294967291;
  return items
    .map((item, index) => ({ item, key: key(index) }))
    .toSorted((a, b) => a.key - b.key)
    .map(({ item }) => item);
}

/** Nothing happens any more from outside but that shards come up, moves end and the deleted go. */
function settle(world: Simulator): { passes: number; last: Action[] } {
  for (const tenant of world.tenants) if (!tenant.move && tenant.deleting) world.happen({ kind: "gone", pick: 0 });
  // Each tenant moves a bounded number of times (lost or drained, upgraded, consolidated), a few at once, and each round of
  // consolidation waits for quiet.
  const bound = 40 + 4 * world.tenants.length + 12 * world.shards.length;
  let idle = 0;
  for (let passes = 1; passes <= bound; passes++) {
    const actions = step(world, passes);
    const isMoving = world.tenants.some(({ move, fallingAsleep, waking, shard }) => {
      const isWaking = waking && world.shards.find(({ name }) => name === shard)?.phase === "Ready";
      return move || fallingAsleep || isWaking;
    });
    idle = actions.some(changesTheWorld) || isMoving ? 0 : idle + 1;
    // Quiet has to last for longer than anything the planner waits for.
    if (idle === 8) return { passes, last: actions };
    world.pass(10);
    const leaving = () => world.tenants.filter((each) => each.deleting && !each.move && !each.fallingAsleep);
    for (const tenant of leaving()) {
      world.happen({ kind: "gone", pick: leaving().indexOf(tenant) });
    }
  }
  throw new Error(`still planning after ${bound} passes: ${JSON.stringify(step(world, 0))}`);
}

describe("whatever happens", () => {
  // oxlint-disable-next-line vitest/expect-expect -- laws.ts expects
  test("plans keep the laws, do not depend on order, and come to rest", () => {
    fc.assert(
      fc.property(policies, fc.array(happenings, { minLength: 1, maxLength: 60 }), (policy, story) => {
        const world = new Simulator(policy, VERSIONS);
        for (const [index, happening] of story.entries()) {
          world.happen(happening);
          step(world, index);
        }
        const { last } = settle(world);
        expectSettled(world, last);
      }),
      { numRuns: RUNS },
    );
  }, 300_000);

  // oxlint-disable-next-line vitest/expect-expect -- laws.ts expects
  test("any state leads to lawful plans that come to rest", () => {
    const phases = fc.constantFrom("Ready", "Ready", "Ready", "Pending", "Starting", "Lost", "Failed", "Stopping");
    const drains = fc.constantFrom(undefined, undefined, "Consolidation", "Requested");
    const shards = fc.array(fc.record({ release: fc.constantFrom(V1, V2), phase: phases, drain: drains }), {
      maxLength: 8,
    });
    const wishes = {
      release: fc.constantFrom(V1, V2),
      deleting: fc.nat(9).map((n) => n === 0),
      refusal: fc.nat(3),
      heavy: fc.nat(5).map((n) => n === 0),
      dedicated: fc.nat(7).map((n) => n === 0),
      on: fc.nat(12),
      to: fc.nat(60),
    };
    fc.assert(
      fc.property(policies, shards, fc.array(fc.record(wishes), { maxLength: 24 }), (policy, some, others) => {
        const world = new Simulator(policy, VERSIONS);
        for (const [index, { release, phase, drain }] of some.entries())
          world.shards.push({
            name: `${release}-${index}`,
            release,
            phase,
            drain,
            lastAssignmentChange: 0,
            grownAt: 0,
          });
        for (const [index, wish] of others.entries()) {
          const shard = world.shards[wish.on]?.name;
          const to = world.shards[wish.to]?.name;
          const refusedRelease = wish.refusal === 0 ? wish.release : undefined;
          const move = shard === undefined || to === undefined ? undefined : { from: shard, to };
          world.tenants.push({
            name: `t${index}`,
            release: wish.release,
            deleting: wish.deleting,
            heavy: wish.heavy,
            dedicated: wish.dedicated,
            refusedRelease,
            shard,
            move,
          });
        }
        expectSettled(world, settle(world).last);
      }),
      { numRuns: 2 * RUNS },
    );
  }, 300_000);

  test("in a healthy world, tidying up moves each tenant at most once", () => {
    const placing = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant("add" as const),
          count: fc.integer({ min: 1, max: 8 }),
          release: fc.constantFrom(...VERSIONS),
        }),
      },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant("delete" as const), pick }) },
      { weight: 2, arbitrary: fc.constant({ kind: "time" as const, seconds: 1 }) },
    );
    fc.assert(
      fc.property(policies, fc.array(placing, { minLength: 1, maxLength: 30 }), (given, story) => {
        // Nothing is consolidated before the story is over.
        const hibernation = { ...given.hibernation, afterIdleSeconds: 0 };
        const policy = { ...given, consolidateAfterSeconds: 600, hibernation };
        const world = new Simulator(policy, VERSIONS);
        for (const [index, happening] of story.entries()) {
          world.happen(happening);
          for (const tenant of world.tenants) if (tenant.deleting) world.happen({ kind: "gone", pick: 0 });
          step(world, index);
        }
        world.policy = { ...policy, consolidateAfterSeconds: 30 };
        const moves = new Map<string, number>();
        for (let pass = 0; pass < 60; pass++) {
          for (const action of step(world, pass)) {
            expect(action.type, "nothing is made, and no drain called off").not.toMatch(/CreateShard|CancelDrain/);
            if (action.type === "Move") moves.set(action.tenant, (moves.get(action.tenant) ?? 0) + 1);
          }
          world.pass(10);
        }
        expect(Math.max(0, ...moves.values())).toBeLessThanOrEqual(1);
      }),
      { numRuns: RUNS / 2 },
    );
  }, 300_000);
});

/** When nothing changes any more, everybody has a place or a reason, and nothing is left half done. */
function expectSettled(world: Simulator, last: Action[]): void {
  const explained = new Set(
    last.filter((action) => !changesTheWorld(action)).map((action) => ("tenant" in action ? action.tenant : "")),
  );
  for (const tenant of world.tenants) {
    const shard = world.shards.find(({ name }) => name === tenant.shard);
    const isShared = world.tenants.some((other) => other !== tenant && other.shard === tenant.shard);
    const fine =
      !(tenant.dedicated && isShared) &&
      shard?.phase === "Ready" &&
      !shard.drain &&
      (shard.release === tenant.release || tenant.refusedRelease === tenant.release);
    // A failed shard is tried again by the controller; its tenants wait for that.
    const settled = tenant.asleep !== undefined || fine || shard?.phase === "Failed" || explained.has(tenant.name);
    expect(settled, `${tenant.name} is well on ${tenant.shard}, or knows why not`).toBe(true);
  }
  const half = world.shards.filter(({ drain, phase }) => drain === "Consolidation" && phase === "Draining");
  expect(half, "shards half drained").toEqual([]);
}
