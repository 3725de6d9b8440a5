import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { ShardPhase } from "../../src/model/shard.ts";
import { ClusterIndex } from "../../src/planner/cluster-index.ts";
import { plan, planFromIndex } from "../../src/planner/plan.ts";
import type { SnapshotShard, SnapshotTenant } from "../../src/planner/snapshot.ts";
import { NOW, shard, SMALL, tenant, V1, V2 } from "./builders.ts";

const shardNames = [V1, V2].flatMap((release) => [0, 1, 2].map((index) => `${release}-${index}`));
const shardName = fc.constantFrom(...shardNames);
const release = fc.constantFrom(V1, V2);
const time = fc.integer({ min: -2_000, max: 200 }).map((seconds) => NOW + seconds * 1000);
const someTenant = fc.record({
  name: fc.constantFrom("a", "b", "c", "d", "e", "f", "g"),
  release,
  shard: fc.option(shardName, { nil: undefined, freq: 5 }),
  move: fc.option(fc.record({ from: shardName, to: shardName }), { nil: undefined, freq: 1 }),
  deleting: fc.boolean(),
  isolated: fc.option(fc.constant(true), { nil: undefined, freq: 1 }),
  dedicated: fc.option(fc.constant(true), { nil: undefined, freq: 1 }),
  refusedRelease: fc.option(release, { nil: undefined }),
  asleep: fc.option(fc.record({ wakeAt: fc.option(time, { nil: undefined }) }), { nil: undefined, freq: 2 }),
  waking: fc.option(fc.record({ due: fc.boolean() }), { nil: undefined, freq: 2 }),
  waitingSince: fc.option(time, { nil: undefined }),
  fallingAsleep: fc.option(fc.constant(true), { nil: undefined, freq: 1 }),
  idle: fc.option(fc.record({ since: time, awakeSince: time, wokenByTime: fc.boolean() }), { nil: undefined }),
});
const someShard = fc.record({
  name: shardName,
  phase: fc.constantFrom<ShardPhase>("Pending", "Starting", "Ready", "Draining", "Lost", "Failed", "Stopping"),
  drain: fc.option(fc.constantFrom("Consolidation" as const, "Requested" as const), { nil: undefined, freq: 2 }),
});
const change = fc.oneof(
  fc.record({ type: fc.constant("tenant" as const), view: someTenant }),
  fc.record({ type: fc.constant("noTenant" as const), name: someTenant.map(({ name }) => name) }),
  fc.record({ type: fc.constant("shard" as const), view: someShard }),
  fc.record({ type: fc.constant("noShard" as const), name: shardName }),
);

test("after any changes it plans what the whole snapshot would", () => {
  const law = fc.property(fc.array(change, { maxLength: 40 }), fc.nat({ max: 40 }), (changes, first) => {
    let index = new ClusterIndex();
    const tenants = new Map<string, SnapshotTenant>();
    const shards = new Map<string, SnapshotShard>();
    const whole = () => ({ now: NOW, tenants: [...tenants.values()], shards: [...shards.values()] });
    for (const [number, each] of changes.entries()) {
      // An index that was read from a snapshot goes on as well.
      if (number === first) index = ClusterIndex.of(whole());
      if (each.type === "tenant") {
        const view = tenant(each.view.name, each.view);
        tenants.set(view.name, view);
        index.setTenant(view);
      } else if (each.type === "noTenant") {
        tenants.delete(each.name);
        index.removeTenant(each.name);
      } else if (each.type === "shard") {
        const view = shard(each.view.name, each.view);
        shards.set(view.name, view);
        index.setShard(view);
      } else {
        shards.delete(each.name);
        index.removeShard(each.name);
      }
      expect(planFromIndex(index, NOW, SMALL)).toEqual(plan(whole(), SMALL));
    }
  });
  fc.assert(law, { numRuns: 300 });
});

test("a plan looks only at tenants that are not where they belong", () => {
  const index = ClusterIndex.of({
    now: NOW,
    shards: [shard(`${V2}-0`), shard(`${V1}-0`)],
    tenants: [
      tenant("rests", { shard: `${V2}-0` }),
      tenant("new"),
      tenant("upgrades", { shard: `${V1}-0` }),
      tenant("was refused", { shard: `${V1}-0`, refusedRelease: V2 }),
      tenant("leaves", { shard: `${V2}-0`, deleting: true }),
      tenant("lost its shard", { shard: `${V2}-7` }),
    ],
  });
  const names = () => index.unsettled().map(({ name }) => name);
  expect(names()).toEqual(["leaves", "lost its shard", "new", "upgrades"]);
  index.setShard(shard(`${V2}-7`));
  expect(names()).toEqual(["leaves", "new", "upgrades"]);
  index.removeShard(`${V2}-0`);
  expect(names()).toEqual(["leaves", "new", "rests", "upgrades"]);
});
