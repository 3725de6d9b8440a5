import { describe, expect, test } from "vitest";
import { plan } from "../../src/planner/plan.ts";
import { NOW, planned, shard, SMALL, snapshot, tenant, tenantsOn, V1, V2 } from "./builders.ts";

const [A, B, C] = [`${V2}-0`, `${V2}-1`, `${V2}-2`];
const OLD = `${V1}-0`;
const justNow = { lastAssignmentChange: NOW - 1000 };

describe("placing", () => {
  test("makes a shard for a first tenant", () => {
    expect(planned(snapshot([], tenant("a")))).toEqual([`create ${A}`, `assign a ${A}`]);
  });

  test("fills the fullest shard before it makes another", () => {
    const given = snapshot(
      [shard(A, justNow), shard(B, justNow)],
      tenantsOn(A, 1),
      tenantsOn(B, 2),
      tenant("x"),
      tenant("y"),
    );
    expect(planned(given)).toEqual([`assign x ${B}`, `assign y ${A}`]);
  });

  test("index 10 comes after 2, and ties go to the lower index", () => {
    const [two, ten] = [`${V2}-2`, `${V2}-10`];
    const given = snapshot([shard(ten, justNow), shard(two, justNow)], tenant("x"));
    expect(planned(given)).toEqual([`assign x ${two}`]);
  });

  test("places on a shard that is still coming up rather than on a new one", () => {
    const given = snapshot([shard(A, { phase: "Starting" })], tenantsOn(A, 1), tenant("x"));
    expect(planned(given)).toEqual([`assign x ${A}`]);
  });

  test.each(["Lost", "Stopping"] as const)("neither places on a shard that is %s nor takes its name", (phase) => {
    expect(planned(snapshot([shard(A, { phase, ...justNow })], tenant("x")))).toEqual([`create ${B}`, `assign x ${B}`]);
  });

  test("makes no further shard of a release that cannot run", () => {
    const failed = snapshot([shard(A, { phase: "Failed" })], tenantsOn(A, 1), tenant("x"));
    expect(planned(failed)).toEqual(["pending x ShardFailed"]);
    expect(plan(failed, SMALL)[0]?.message).toContain(`shard ${A} of Synapse ${V2} cannot be started`);
    const shards = [shard(A, { phase: "Failed", ...justNow }), shard(B, { phase: "Starting" })];
    const beside = snapshot(shards, tenantsOn(B, 3), tenant("x"));
    expect(planned(beside), "a shard that comes up and is full proves nothing yet").toEqual(["pending x ShardFailed"]);
  });

  test("one failed shard does not hold up a release of which others run", () => {
    const given = snapshot([shard(A, { phase: "Failed", ...justNow }), shard(B)], tenantsOn(B, 3), tenant("x"));
    expect(planned(given)).toEqual([`create ${C}`, `assign x ${C}`]);
  });

  test("makes no second failing shard for an upgrade or an evacuation", () => {
    const upgrade = snapshot([shard(OLD), shard(A, { phase: "Failed" })], tenantsOn(OLD, 1, { release: V2 }));
    expect(planned(upgrade)).toEqual([`waiting ${OLD}-t0 Upgrade ShardFailed`]);
    const lost = snapshot([shard(A, { phase: "Failed" }), shard(B, { phase: "Lost" })], tenantsOn(B, 1));
    expect(planned(lost)).toEqual([`waiting ${B}-t0 ShardLost ShardFailed`]);
  });

  test("takes the lowest free index", () => {
    const given = snapshot([shard(A), shard(C)], tenantsOn(A, 3), tenantsOn(C, 3), tenant("x"));
    expect(planned(given)).toEqual([`create ${B}`, `assign x ${B}`]);
  });

  test("keeps to the maximum of shards, and one saturated release does not hold up another", () => {
    const full = [A, B, C].flatMap((name) => tenantsOn(name, 3));
    const given = snapshot([shard(A), shard(B), shard(C)], full, tenant("x"), tenant("y", { release: V1 }));
    expect(planned(given)).toEqual(["pending x MaxShardsReached", `create ${OLD}`, `assign y ${OLD}`]);
    expect(plan(given, SMALL)[0]?.message).toBe(
      "no shard of Synapse 1.163.2 has a free place (at most 3 tenants each), and 3 of at most 3 shards exist",
    );
  });

  test("a tenant being deleted, or on its way in, keeps its place", () => {
    const leaving = tenant("gone", { shard: A, deleting: true });
    const arriving = tenant("in", { shard: B, move: { from: B, to: A } });
    const given = snapshot([shard(A), shard(B)], leaving, arriving, tenantsOn(A, 1), tenant("x"));
    expect(planned(given)).toEqual([`assign x ${B}`]);
  });

  test("leaves a tenant that is being deleted alone", () => {
    expect(planned(snapshot([], tenant("x", { deleting: true })))).toEqual([]);
  });

  test("places a tenant whose shard has vanished, and makes no new shard of that name", () => {
    expect(planned(snapshot([], tenant("x", { shard: A })))).toEqual([`create ${B}`, `assign x ${B}`]);
  });

  test("does nothing when the maximum is lowered below what is there", () => {
    const given = snapshot([shard(A), shard(B)], tenantsOn(A, 3), tenantsOn(B, 3));
    expect(planned(given, { maxTenantsPerShard: 1, maxShardsPerSynapseImageTag: 1 })).toEqual([]);
  });

  test("keeps a shard that consolidation gives up rather than make another", () => {
    const given = snapshot(
      [shard(A), shard(B, { drain: "Consolidation", phase: "Draining" })],
      tenantsOn(A, 3),
      tenantsOn(B, 1),
      tenant("x"),
    );
    expect(planned(given)).toEqual([`undrain ${B}`, `assign x ${B}`]);
  });
});

describe("upgrading", () => {
  const wishes = tenantsOn(OLD, 2, { release: V2 });

  test("moves a tenant whose release changes", () => {
    const given = snapshot([shard(OLD), shard(A)], wishes, tenantsOn(A, 1));
    expect(planned(given)).toEqual([`move ${OLD}-t0 ${OLD} ${A} Upgrade`, `move ${OLD}-t1 ${OLD} ${A} Upgrade`]);
  });

  test("waits for the new shard before it moves, and makes no second one", () => {
    expect(planned(snapshot([shard(OLD)], wishes))).toEqual([`create ${A}`]);
    expect(planned(snapshot([shard(OLD), shard(A, { phase: "Starting" })], wishes))).toEqual([]);
    expect(planned(snapshot([shard(OLD), shard(A, { phase: "Pending" })], wishes))).toEqual([]);
  });

  test("a place kept for an upgrade is not free", () => {
    const four = [...wishes, ...tenantsOn(`${V1}-1`, 2, { release: V2 })];
    const given = snapshot([shard(OLD), shard(`${V1}-1`), shard(A, { phase: "Starting" })], four);
    expect(planned(given)).toEqual([`create ${B}`]);
  });

  test("does not try a refused release again, nor keep a shard for it", () => {
    const refused = tenant("x", { release: V2, shard: OLD, refusedRelease: V2 });
    expect(planned(snapshot([shard(OLD), shard(A)], refused))).toEqual([`stop ${A} Unused`]);
  });

  test("explains an upgrade without a place", () => {
    const full = [A, B, C].flatMap((name) => tenantsOn(name, 3));
    const given = snapshot([shard(OLD), shard(A), shard(B), shard(C)], full, wishes[0] ?? []);
    expect(planned(given)).toEqual([`waiting ${OLD}-t0 Upgrade MaxShardsReached`]);
  });

  test("keeps to the bound of moves, those under way included", () => {
    const moving = tenant("m", { shard: A, move: { from: A, to: A } });
    const given = snapshot([shard(OLD), shard(A)], wishes, moving);
    expect(planned(given, { maxConcurrentMoves: 2 })).toEqual([`move ${OLD}-t0 ${OLD} ${A} Upgrade`]);
  });

  test("repeats a failed move after its time, and keeps its place", () => {
    const later = wishes.map((each) => ({ ...each, moveNotBefore: NOW + 1 }));
    expect(planned(snapshot([shard(OLD), shard(A)], later))).toEqual([]);
    const due = wishes.map((each) => ({ ...each, moveNotBefore: NOW }));
    expect(planned(snapshot([shard(OLD), shard(A)], due))).toHaveLength(2);
  });
});

describe("lost shards", () => {
  const lost = shard(A, { phase: "Lost" });

  test("moves tenants of a shard that does not answer", () => {
    const given = snapshot([lost, shard(B)], tenantsOn(A, 2), tenantsOn(B, 2));
    expect(planned(given)).toEqual([`move ${A}-t0 ${A} ${B} ShardLost`, `create ${C}`]);
  });

  test("explains evacuees without a place", () => {
    const given = snapshot([lost, shard(B)], tenantsOn(A, 2), tenantsOn(B, 2));
    expect(planned(given, { maxShardsPerSynapseImageTag: 2 })).toEqual([
      `move ${A}-t0 ${A} ${B} ShardLost`,
      `waiting ${A}-t1 ShardLost MaxShardsReached`,
    ]);
  });

  test("evacuates to the tenant's own release where the wanted one is full", () => {
    const full = [A, B, C].flatMap((name) => tenantsOn(name, 3));
    const given = snapshot(
      [shard(OLD, { phase: "Lost" }), shard(`${V1}-1`), shard(A), shard(B), shard(C)],
      full,
      tenantsOn(`${V1}-1`, 1),
      tenant("x", { shard: OLD, release: V2 }),
    );
    expect(planned(given)).toEqual([`move x ${OLD} ${V1}-1 ShardLost`]);
  });

  test("does not stop an empty lost shard", () => {
    expect(planned(snapshot([lost, shard(B)], tenantsOn(B, 1)))).toEqual([]);
  });
});

describe("draining", () => {
  const requested = shard(A, { drain: "Requested", phase: "Draining" });

  test("a requested drain moves all tenants, then stops the shard", () => {
    const given = snapshot([requested, shard(B)], tenantsOn(A, 1), tenantsOn(B, 1));
    expect(planned(given)).toEqual([`move ${A}-t0 ${A} ${B} Drain`]);
  });

  test("stops a drained shard", () => {
    expect(planned(snapshot([shard(A, { ...justNow, drain: "Requested" })]))).toEqual([`stop ${A} Drained`]);
  });

  test("does not stop a shard to which a tenant may be rolled back", () => {
    const moving = tenant("m", { shard: B, move: { from: A, to: B } });
    expect(planned(snapshot([requested, shard(B)], moving))).toEqual([]);
  });

  test("places nobody on a shard that is drained on request", () => {
    expect(planned(snapshot([requested], tenant("x")))).toEqual([`create ${B}`, `assign x ${B}`, `stop ${A} Drained`]);
  });

  test("calls off a consolidation when the places have been taken meanwhile", () => {
    const given = snapshot(
      [shard(A), shard(B, { drain: "Consolidation", phase: "Draining" })],
      tenantsOn(A, 2),
      tenantsOn(B, 2),
    );
    expect(planned(given)).toEqual([`undrain ${B}`]);
  });

  test("goes on with a consolidation that has begun", () => {
    const given = snapshot(
      [shard(A), shard(B, { drain: "Consolidation", phase: "Draining" })],
      tenantsOn(A, 2),
      tenantsOn(B, 1),
    );
    expect(planned(given)).toEqual([`move ${B}-t0 ${B} ${A} Consolidation`]);
  });
});

describe("consolidation", () => {
  test("gives up the least loaded shard, of equals the highest index", () => {
    const given = snapshot([shard(A), shard(B), shard(C)], tenantsOn(A, 2), tenantsOn(B, 1), tenantsOn(C, 1));
    expect(planned(given)).toEqual([`drain ${C}`]);
    expect(plan(given, SMALL)[0]?.message).toBe(
      "shards of Synapse 1.163.2 have 1.3 tenants on average, below 2; its 1 fit on 2 others",
    );
  });

  test("gives up several shards in one plan", () => {
    const given = snapshot([shard(A), shard(B), shard(C)], tenantsOn(A, 1), tenantsOn(B, 1), tenantsOn(C, 1));
    expect(planned(given)).toEqual([`drain ${C}`, `drain ${B}`]);
  });

  test("drains nothing at the threshold, not the last shard, and nothing that does not fit", () => {
    const roomy = { maxTenantsPerShard: 4 };
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 3), tenantsOn(B, 1)), roomy)).toEqual([]);
    expect(planned(snapshot([shard(A)], tenantsOn(A, 1)))).toEqual([]);
    const high = { avgShardsLoadRedistributionThreshold: 100 };
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 3), tenantsOn(B, 1)), high)).toEqual([]);
  });

  test("does not consolidate until placement has been quiet", () => {
    const given = snapshot(
      [shard(A), shard(B, { lastAssignmentChange: NOW - 29_999 })],
      tenantsOn(A, 1),
      tenantsOn(B, 1),
    );
    expect(planned(given)).toEqual([]);
    const quiet = snapshot(
      [shard(A), shard(B, { lastAssignmentChange: NOW - 30_000 })],
      tenantsOn(A, 1),
      tenantsOn(B, 1),
    );
    expect(planned(quiet)).toEqual([`drain ${B}`]);
  });

  test.each(["Pending", "Starting", "Lost", "Failed", "Stopping", "Draining"] as const)(
    "does not consolidate while a shard is %s",
    (phase) => {
      const given = snapshot([shard(A), shard(B), shard(C, { phase })], tenantsOn(A, 1), tenantsOn(B, 1));
      expect(planned(given).filter((line) => line.startsWith("drain"))).toEqual([]);
    },
  );

  test("does not consolidate a release in which something moves", () => {
    const moving = tenant("m", { shard: A, move: { from: A, to: A } });
    expect(planned(snapshot([shard(A), shard(B)], moving, tenantsOn(B, 1)))).toEqual([]);
  });
});

describe("empty shards", () => {
  test("stops the shards of a release that nobody uses", () => {
    expect(planned(snapshot([shard(OLD), shard(A)], tenantsOn(A, 1)))).toEqual([`stop ${OLD} Unused`]);
  });

  test("does not stop a shard before it has been quiet, nor while a tenant is coming", () => {
    expect(planned(snapshot([shard(OLD, justNow)]))).toEqual([]);
    const coming = tenant("m", { release: V2, shard: OLD, move: { from: OLD, to: A } });
    expect(planned(snapshot([shard(OLD), shard(A)], coming))).toEqual([]);
  });

  test("stops an empty shard beside one with places", () => {
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(B, 3)))).toEqual([`stop ${A} Unused`]);
  });

  test("keeps the only shard with places while its release is in use", () => {
    const given = snapshot([shard(A, { phase: "Failed" }), shard(B)], tenantsOn(A, 2));
    expect(planned(given)).toEqual([]);
  });
});

describe("a heavy tenant", () => {
  const heavy = tenant("h", { shard: A, heavy: true });

  test("gets a shard of its own, and moves there when it is up", () => {
    const [first, second] = [snapshot([shard(A)], tenantsOn(A, 2), heavy), [shard(A), shard(B, justNow)]];
    expect(planned(first)).toEqual([`create ${B}`]);
    expect(planned(snapshot(second, tenantsOn(A, 2), heavy))).toEqual([`move h ${A} ${B} CpuBudgetExceeded`]);
  });

  test("stays among others rather than take the last shard that may be made", () => {
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 2), heavy, tenantsOn(B, 3)))).toEqual([]);
  });

  test("is left alone on its shard, which is neither filled nor given up", () => {
    const alone = tenant("h", { shard: B, heavy: true });
    const given = snapshot([shard(A), shard(B)], tenantsOn(A, 1), alone, tenant("x"));
    expect(planned(given)).toEqual([`assign x ${A}`]);
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 1), alone))).toEqual([]);
  });

  test("gets a neighbour before a tenant finds no place at all", () => {
    const alone = tenant("h", { shard: B, heavy: true });
    const given = snapshot([shard(A), shard(B)], tenantsOn(A, 3), alone, tenant("x"));
    expect(planned(given, { maxShardsPerSynapseImageTag: 2 })).toEqual([`assign x ${B}`]);
  });

  test("is among others again when it is heavy no longer and shards are to be given up", () => {
    const calm = tenant("h", { shard: B });
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 1), calm))).toEqual([`drain ${B}`]);
  });
});

describe("a dedicated tenant", () => {
  const dedicated = tenant("d", { shard: A, dedicated: true });

  test("gets a shard of its own, moves there when it is up, and serves among others until then", () => {
    expect(planned(snapshot([shard(A)], tenantsOn(A, 2), dedicated))).toEqual([`create ${B}`]);
    const second = [shard(A), shard(B, justNow)];
    expect(planned(snapshot(second, tenantsOn(A, 2), dedicated))).toEqual([`move d ${A} ${B} Placement`]);
  });

  test("takes the last shard that may be made, and says so where there is none", () => {
    const most = { maxShardsPerSynapseImageTag: 2 };
    expect(planned(snapshot([shard(A)], tenantsOn(A, 2), dedicated), most)).toEqual([`create ${B}`]);
    const full = snapshot([shard(A), shard(B)], tenantsOn(A, 2), dedicated, tenantsOn(B, 3));
    expect(planned(full, most)).toEqual(["waiting d Placement MaxShardsReached"]);
  });

  test("waits for no maintenance window, as it was asked for", () => {
    const given = { ...snapshot([shard(A), shard(B, justNow)], tenantsOn(A, 2), dedicated), windowClosed: true };
    expect(planned(given)).toEqual([`move d ${A} ${B} Placement`]);
  });

  test("gets no neighbour, even if a tenant finds no place at all", () => {
    const alone = tenant("d", { shard: B, dedicated: true });
    const given = snapshot([shard(A), shard(B)], tenantsOn(A, 3), alone, tenant("x"));
    expect(planned(given, { maxShardsPerSynapseImageTag: 2 })).toEqual(["pending x MaxShardsReached"]);
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 1), alone))).toEqual([]);
  });

  test("serves among others where no shard can be had, and is not put to sleep for them", () => {
    const most = { maxShardsPerSynapseImageTag: 2 };
    const shards = [shard(A), shard(B)];
    const homeless = tenant("d", { dedicated: true });
    expect(planned(snapshot(shards, tenantsOn(A, 2), tenantsOn(B, 1), homeless), most)).toEqual([`assign d ${A}`]);
    const idle = { idle: { since: NOW - 600_000, awakeSince: NOW - 3_600_000 } };
    const alone = tenant("d", { shard: B, dedicated: true, ...idle });
    expect(planned(snapshot(shards, tenantsOn(A, 3), alone, tenant("x")), most)).toEqual([
      "pending x MaxShardsReached",
    ]);
  });

  test("stays where its neighbours are leaving, and has its reason for staying told once", () => {
    const both = [dedicated, tenant("e", { shard: A, dedicated: true })];
    expect(planned(snapshot([shard(A), shard(B, justNow)], both))).toEqual([`move d ${A} ${B} Placement`]);
    const most = { maxShardsPerSynapseImageTag: 1 };
    const old = tenant("d", { shard: `${V1}-0`, dedicated: true });
    const shards = [shard(`${V1}-0`), shard(A)];
    expect(planned(snapshot(shards, tenantsOn(`${V1}-0`, 2), tenantsOn(A, 3), old), most)).toEqual([
      "waiting d Upgrade MaxShardsReached",
    ]);
    const drained = [shard(A, { drain: "Requested" })];
    expect(planned(snapshot(drained, tenantsOn(A, 1), dedicated), most)).toEqual([
      `waiting ${A}-t0 Drain MaxShardsReached`,
      "waiting d Drain MaxShardsReached",
    ]);
  });

  test("has a shard of its own again when it wakes, is upgraded, or its shard is drained", () => {
    const woken = tenant("d", { dedicated: true, waking: { due: false } });
    expect(planned(snapshot([shard(A)], tenantsOn(A, 1), woken))).toEqual([`create ${B}`, `assign d ${B}`]);
    const old = tenant("d", { shard: `${V1}-0`, dedicated: true });
    expect(planned(snapshot([shard(`${V1}-0`), shard(A)], tenantsOn(A, 1), old))).toEqual([`create ${B}`]);
    const leaving = tenant("d", { shard: B, dedicated: true });
    const drained = [shard(A), shard(B, { drain: "Requested", phase: "Draining" })];
    expect(planned(snapshot(drained, tenantsOn(A, 1), leaving))).toEqual([`create ${V2}-2`]);
  });

  test("is among others again when it is dedicated no longer and shards are to be given up", () => {
    expect(planned(snapshot([shard(A), shard(B)], tenantsOn(A, 1), tenant("d", { shard: B })))).toEqual([`drain ${B}`]);
  });
});
