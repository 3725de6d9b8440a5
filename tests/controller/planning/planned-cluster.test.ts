import * as fc from "fast-check";
import { expect, test } from "vitest";
import { SteadyClock } from "../../../src/model/clock.ts";
import { PlannedCluster, snapshotOf } from "../../../src/controller/planning/planned-cluster.ts";
import type { ShardPhase } from "../../../src/model/shard.ts";
import type { TenantStatus } from "../../../src/model/tenant.ts";
import { plan, planFromIndex } from "../../../src/planner/plan.ts";
import { CachedReader } from "../../../src/controller/cached-reader.ts";
import { LocalStore } from "../../../src/platforms/local/store/local-store.ts";
import { modify } from "../../../src/ports/store.ts";
import { NOW, SMALL, V1, V2 } from "../../planner/builders.ts";
import { SPEC, STATUS } from "../../ports/store-contract.ts";

const CLOCK = new SteadyClock();
const shardName = fc.constantFrom(`${V1}-0`, `${V2}-0`, `${V2}-1`);
const tenantName = fc.constantFrom("a", "b", "c", "d");
/** Not after each change: several meet in one pass. */
const passAfter = fc.boolean();
const step = fc.oneof(
  fc.record({
    type: fc.constant("tenant" as const),
    name: tenantName,
    // Without one it has its shard's, or the fleet's.
    release: fc.constantFrom("", V1, V2),
    shard: fc.option(shardName, { nil: undefined, freq: 5 }),
    move: fc.option(fc.record({ from: shardName, to: shardName }), { nil: undefined, freq: 1 }),
    reason: fc.constantFrom("", "MaxShardsReached", "InvalidConfig"),
    passAfter,
  }),
  fc.record({ type: fc.constant("noTenant" as const), name: tenantName, passAfter }),
  fc.record({
    type: fc.constant("shard" as const),
    name: shardName,
    phase: fc.constantFrom<ShardPhase>("Pending", "Ready", "Lost", "Failed"),
    load: fc.double({ min: 0, max: 1, noNaN: true }),
    passAfter,
  }),
  fc.record({ type: fc.constant("noShard" as const), name: shardName, passAfter }),
);

type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

test("whatever is written, it plans what the whole store would", async () => {
  const law = fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.boolean(), async (steps, opensLate) => {
    const store = new LocalStore(":memory:");
    const reader = new CachedReader(store);
    const cluster = new PlannedCluster(reader, { clock: CLOCK });
    if (!opensLate) await reader.open();
    for (const each of steps) {
      await write(store, each);
      if (!opensLate && each.passAfter) await compare(store, cluster);
    }
    if (opensLate) await reader.open();
    await compare(store, cluster);
    await store.close();
  });
  await fc.assert(law, { numRuns: 200 });
});

async function compare(store: LocalStore, cluster: PlannedCluster): Promise<void> {
  const snapshot = { ...snapshotOf(await store.list("Tenant"), await store.list("Shard"), { clock: CLOCK }), now: NOW };
  cluster.update();
  expect(planFromIndex(cluster.index, NOW, SMALL)).toEqual(plan(snapshot, SMALL));
  const waiting = (await store.list("Tenant")).filter(({ status }) => status.reason === "MaxShardsReached");
  expect(cluster.withoutPlace().toSorted()).toEqual(waiting.map(({ metadata }) => metadata.name));
}

async function write(store: LocalStore, each: Step): Promise<void> {
  const { type, name } = each;
  if (type === "tenant") {
    const { release, shard, move, reason } = each;
    const status = { ...STATUS, shard, move, reason } as TenantStatus;
    const there = await modify(store, "Tenant", name, (tenant) => {
      tenant.status = status;
      tenant.spec.release = release;
    });
    if (!there) await store.create("Tenant", name, { ...SPEC, release }, status);
  } else if (type === "shard") {
    const { phase, load } = each;
    const there = await modify(store, "Shard", name, ({ status }) => void Object.assign(status, { phase, load }));
    const spec = { release: name.replace(/-\d+$/, "") };
    if (!there) await store.create("Shard", name, spec, { phase, reason: "", message: "", failures: 0 });
  } else await store.remove(type === "noTenant" ? "Tenant" : "Shard", name);
}
