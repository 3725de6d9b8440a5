import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DueTimes } from "../../src/planner/due-times.ts";
import { plan } from "../../src/planner/plan.ts";
import type { SnapshotTenant } from "../../src/planner/snapshot.ts";
import { NOW, planned, shard, SMALL, snapshot, tenant, tenantsOn, V1, V2 } from "./builders.ts";
import { expectLawful } from "./laws.ts";
import { Simulator } from "./simulator.ts";

const ago = (seconds: number) => NOW - seconds * 1000;
const idle = (name: string, seconds: number, over: Partial<SnapshotTenant["idle"]> = {}) =>
  tenant(name, { shard: `${V2}-0`, idle: { since: ago(seconds), ...over } });
const asleep = (name: string, dueSeconds?: number) =>
  tenant(name, { asleep: dueSeconds === undefined ? {} : { wakeAt: NOW + dueSeconds * 1000 } });
const waking = (name: string, sinceSeconds: number, over: Partial<SnapshotTenant> = {}) =>
  tenant(name, { waking: { due: false }, waitingSince: ago(sinceSeconds), ...over });
const full = (count: number, over: Partial<SnapshotTenant> = {}) => tenantsOn(`${V2}-0`, count, over);
/** Places for three, on one shard. */
const ONE_SHARD = { maxShardsPerSynapseImageTag: 1 };

describe("falling asleep", () => {
  it("comes after the time without use, and not before", () => {
    const others = tenantsOn(`${V2}-0`, 1);
    expect(planned(snapshot([shard(`${V2}-0`)], others, idle("a", 899)))).toEqual([]);
    expect(planned(snapshot([shard(`${V2}-0`)], others, idle("a", 900)))).toEqual([`sleep a ${V2}-0 Idle`]);
  });

  it("goes by the tenant's own time, where it has one", () => {
    const given = snapshot(
      [shard(`${V2}-0`)],
      idle("a", 5_000, { afterSeconds: 0 }),
      idle("b", 70, { afterSeconds: 60 }),
    );
    expect(planned(given)).toEqual([`sleep b ${V2}-0 Idle`]);
    const off = { hibernation: { ...SMALL.hibernation, afterIdleSeconds: 0 } };
    expect(planned(snapshot([shard(`${V2}-0`)], idle("a", 5_000)), off)).toEqual([]);
  });

  it("waits until one that was woken has been awake for a while", () => {
    expect(planned(snapshot([shard(`${V2}-0`)], idle("a", 5_000, { awakeSince: ago(119) })))).toEqual([]);
    expect(planned(snapshot([shard(`${V2}-0`)], idle("a", 5_000, { awakeSince: ago(120) })))).toHaveLength(1);
  });

  it("does not wait so long where it was woken only for what was due", () => {
    const done = idle("a", 6, { awakeSince: ago(6), wokenByTime: true });
    expect(planned(snapshot([shard(`${V2}-0`)], done))).toEqual([`sleep a ${V2}-0 Done`]);
  });

  it("is asked of no tenant that is quarantined, moving, leaving, or kept awake", () => {
    const kept = [
      idle("a", 5_000, { notBefore: NOW + 1 }),
      { ...idle("b", 5_000), move: { from: `${V2}-0`, to: `${V2}-0` } },
      { ...idle("c", 5_000), deleting: true },
    ];
    expect(planned(snapshot([shard(`${V2}-0`)], kept))).toEqual([]);
    expect(planned(snapshot([shard(`${V2}-0`)], { ...idle("a", 5_000), isolated: true }))).toEqual([]);
  });

  it("is asked of nobody while a gateway is there that cannot wake", () => {
    expect(planned({ ...snapshot([shard(`${V2}-0`)], idle("a", 5_000)), nobodyWakes: true })).toEqual([]);
  });

  it("is asked of as many at once as may wake at once", () => {
    const policy = { maxTenantsPerShard: 10, hibernation: { ...SMALL.hibernation, maxConcurrentWakes: 2 } };
    const given = [idle("a", 1_000), idle("b", 3_000), idle("c", 2_000)];
    const plans = planned(snapshot([shard(`${V2}-0`)], given), policy);
    expect(plans).toEqual([`sleep b ${V2}-0 Idle`, `sleep c ${V2}-0 Idle`]);
    const falling = tenant("z", { shard: `${V2}-0`, deleting: true, fallingAsleep: true });
    expect(planned(snapshot([shard(`${V2}-0`)], given, falling), policy)).toEqual([`sleep b ${V2}-0 Idle`]);
  });
});

describe("a tenant that sleeps", () => {
  it("holds no place, and is looked for a place only when it is wanted or due", () => {
    const sleepers = Array.from({ length: 50 }, (_, n) => asleep(`s${n}`, 60));
    expect(planned(snapshot([shard(`${V2}-0`)], full(3), sleepers), ONE_SHARD)).toEqual([]);
  });

  it("is counted by no consolidation: the average is that of those awake", () => {
    const shards = [shard(`${V2}-0`), shard(`${V2}-1`)];
    const sleepers = Array.from({ length: 50 }, (_, n) => asleep(`s${n}`));
    expect(planned(snapshot(shards, full(2), tenantsOn(`${V2}-1`, 1), sleepers))).toEqual([`drain ${V2}-1`]);
  });

  it("keeps one shard of its release, which is warm when it wakes", () => {
    expect(planned(snapshot([shard(`${V2}-0`), shard(`${V2}-1`)], asleep("a")))).toEqual([`stop ${V2}-1 Unused`]);
  });

  it("goes to a shard that is there, when somebody wants it", () => {
    expect(planned(snapshot([shard(`${V2}-0`)], full(2), waking("a", 1)))).toEqual([`assign a ${V2}-0`]);
  });

  it("is woken when it is due, the longest due first, as far as those leave room whom somebody waits for", () => {
    const hibernation = { ...SMALL.hibernation, maxConcurrentWakes: 4 };
    const policy = { maxTenantsPerShard: 10, hibernation };
    const due = [asleep("a", -1), asleep("b", -30), asleep("c", -20), asleep("d", 1)];
    const plans = planned(snapshot([shard(`${V2}-0`)], due), policy);
    expect(plans).toEqual([`wake b ${V2}-0 Due`, `wake c ${V2}-0 Due`]);
    const underWay = [1, 2, 3].map((n) => waking(`w${n}`, 1, { shard: `${V2}-0` }));
    expect(planned(snapshot([shard(`${V2}-0`)], due, underWay), policy)).toEqual([`wake b ${V2}-0 Due`]);
  });
});

describe("waking", () => {
  it("is begun for as many at once as may, those first that have waited longest", () => {
    const policy = { maxTenantsPerShard: 10, hibernation: { ...SMALL.hibernation, maxConcurrentWakes: 2 } };
    const given = snapshot([shard(`${V2}-0`)], waking("a", 1), waking("b", 3), waking("c", 2));
    expect(planned(given, policy)).toEqual([`assign b ${V2}-0`, `assign c ${V2}-0`]);
  });

  it("takes the place of whom nobody has used for longest, where there is none left", () => {
    const given = snapshot([shard(`${V2}-0`)], idle("a", 60), idle("b", 90), full(1), waking("w", 1));
    expect(planned(given, ONE_SHARD)).toEqual(["pending w MaxShardsReached", `sleep b ${V2}-0 PlacesNeeded`]);
  });

  it("takes no more places than it needs: one that is being left counts", () => {
    const falling = tenant("f", { shard: `${V2}-0`, deleting: true, fallingAsleep: true });
    const given = snapshot([shard(`${V2}-0`)], idle("a", 60), falling, full(1), waking("w", 1));
    expect(planned(given, ONE_SHARD)).toEqual(["pending w MaxShardsReached"]);
  });

  it("takes nobody's place who is of another release, in use, or was woken a moment ago", () => {
    const elsewhere = tenant("e", { release: V1, shard: `${V1}-0`, idle: { since: ago(500) } });
    const fresh = idle("b", 60, { awakeSince: ago(60) });
    const given = snapshot([shard(`${V2}-0`), shard(`${V1}-0`)], fresh, full(2), elsewhere, waking("w", 1));
    expect(planned(given, ONE_SHARD)).toEqual(["pending w MaxShardsReached"]);
  });

  it("for what is due makes room too, and begins when there is some", () => {
    const given = snapshot([shard(`${V2}-0`)], idle("a", 60), full(2), asleep("d", -5));
    expect(planned(given, ONE_SHARD)).toEqual([`sleep a ${V2}-0 PlacesNeeded`]);
  });
});

/** More tenants than places, all of which are wanted from time to time. */
function crowd(minAwakeSeconds: number): Simulator {
  const hibernation = { afterIdleSeconds: 900, minAwakeSeconds, maxConcurrentWakes: 4 };
  const world = new Simulator({ ...SMALL, maxShardsPerSynapseImageTag: 2, maxTenantsPerShard: 3, hibernation }, [V2]);
  world.happen({ kind: "add", count: 30, release: V2 });
  return world;
}

describe("over an hour with five times as many tenants as places", () => {
  it("everybody who is wanted comes to run, and nobody is put to sleep before the time", () => {
    const world = crowd(60);
    const wantedSince = new Map<string, number>();
    const ranAt = new Map<string, number>();
    const waits: number[] = [];
    /** For how long those had been awake that were put to sleep. */
    const sleeps: number[] = [];
    for (let second = 0; second < 3_600; second += 5) {
      if (second % 20 === 0) world.happen({ kind: "wake", pick: second / 20 });
      const before = world.snapshot();
      const actions = plan(before, world.policy);
      expectLawful(before, world.policy, actions);
      for (const action of actions) {
        if (action.type === "Sleep") {
          sleeps.push(world.now - (ranAt.get(action.tenant) ?? 0));
        }
        world.apply(action);
      }
      world.pass(5);
      for (const { name, idle: runs, waking: wanted } of world.tenants) {
        if (wanted && !wantedSince.has(name)) wantedSince.set(name, world.now);
        if (!runs) continue;
        if (!ranAt.has(name) || before.tenants.find((t) => t.name === name)?.idle === undefined)
          ranAt.set(name, world.now);
        const since = wantedSince.get(name);
        if (since !== undefined) waits.push(world.now - since);
        wantedSince.delete(name);
      }
    }
    // 30 tenants of which each has its minute, six at a time: nobody waits for longer than all before it together.
    expect(ranAt.size).toBe(30);
    expect(Math.max(...waits)).toBeLessThanOrEqual((30 / 6) * 90_000);
    expect(Math.min(...sleeps)).toBeGreaterThanOrEqual(60_000);
    expect(sleeps.length).toBeGreaterThan(50);
    // As many as there are places, for a minute each at least.
    expect(sleeps.length).toBeLessThanOrEqual(6 * 60);
  });
});

describe("times by which something is due", () => {
  const changes = fc.array(
    fc.record({ name: fc.constantFrom("a", "b", "c", "d", "e", "f"), at: fc.option(fc.nat(20), { nil: undefined }) }),
    { maxLength: 60 },
  );

  it("are told in their order, whatever was changed before", () => {
    fc.assert(
      fc.property(changes, fc.nat(22), fc.integer({ min: 1, max: 7 }), (story, now, limit) => {
        const times = new DueTimes();
        const plain = new Map<string, number>();
        for (const { name, at } of story) {
          if (at === undefined) {
            times.delete(name);
            plain.delete(name);
          } else {
            times.set(name, at);
            plain.set(name, at);
          }
          const due = [...plain].filter(([, when]) => when <= now);
          const inOrder = due.toSorted(([a, at1], [b, at2]) => at1 - at2 || (a < b ? -1 : 1)).map(([key]) => key);
          expect(times.due(now, limit)).toEqual(inOrder.slice(0, limit));
          expect(times.due(now, 100)).toEqual(inOrder);
        }
      }),
      { numRuns: 500 },
    );
  });
});
