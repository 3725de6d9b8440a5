import { describe, expect, test } from "vitest";
import { canDrain, chooseTarget } from "../../src/planner/requests.ts";
import { shard, SMALL, snapshot, tenant, tenantsOn, V1, V2 } from "./builders.ts";

const [A, B, C] = [`${V2}-0`, `${V2}-1`, `${V2}-2`];
const OLD = `${V1}-0`;

describe("canDrain", () => {
  const three = [shard(A), shard(B), shard(C)];

  test("refuses a drain that cannot be finished", () => {
    const tight = snapshot(three, tenantsOn(A, 2), tenantsOn(B, 3), tenantsOn(C, 2));
    expect(canDrain(tight, SMALL, A)).toEqual({
      fits: false,
      needed: 2,
      free: 1,
      reason: "MaxShardsReached",
      message:
        "the 2 tenants of shard 1.163.2-0 do not fit elsewhere: no shard of Synapse 1.163.2 has a free place (at most 3 tenants each), and 3 of at most 3 shards exist",
    });
  });

  test("counts the places of shards that may still be made", () => {
    const given = snapshot([shard(A), shard(B)], tenantsOn(A, 3), tenantsOn(B, 3));
    expect(canDrain(given, SMALL, A)).toMatchObject({ fits: true, needed: 3, free: 3 });
  });

  test("promises no places that others need first", () => {
    const given = snapshot(three, tenantsOn(A, 1), tenantsOn(B, 2), tenantsOn(C, 3), tenant("new"));
    expect(canDrain(given, SMALL, A)).toMatchObject({ fits: false, needed: 1, free: 0 });
  });

  test("tenants that leave anyway do not hinder a drain", () => {
    const full = [...tenantsOn(B, 3), ...tenantsOn(C, 2)];
    const given = snapshot(
      three,
      full,
      tenant("d", { shard: A, deleting: true }),
      tenant("m", { shard: A, move: { from: A, to: C } }),
    );
    expect(canDrain(given, SMALL, A)).toMatchObject({ fits: true, needed: 0 });
  });

  test("counts a tenant on its way to the shard", () => {
    const full = [...tenantsOn(B, 3), ...tenantsOn(C, 3)];
    const given = snapshot(three, full.slice(1), tenant("m", { shard: B, move: { from: B, to: A } }));
    expect(canDrain(given, SMALL, A)).toMatchObject({ fits: false, needed: 1 });
  });

  test("refuses a drain of what does not exist", () => {
    expect(canDrain(snapshot([]), SMALL, A)).toMatchObject({ fits: false, reason: "NotFound" });
  });
});

describe("chooseTarget", () => {
  const mover = tenant("x", { shard: A });

  test("chooses the fullest other shard that answers", () => {
    const given = snapshot(
      [shard(A), shard(B), shard(C), shard(`${V2}-3`, { phase: "Starting" })],
      mover,
      tenantsOn(B, 1),
      tenantsOn(C, 2),
    );
    expect(chooseTarget(given, SMALL, "x")).toEqual({ shard: C });
  });

  test("makes a shard for a move where none has a place", () => {
    expect(chooseTarget(snapshot([shard(A)], mover), SMALL, "x")).toEqual({ create: B });
  });

  test("makes no shard above the maximum for a move", () => {
    const given = snapshot([shard(A)], mover);
    expect(chooseTarget(given, { ...SMALL, maxShardsPerSynapseImageTag: 1 }, "x")).toMatchObject({
      refused: "MaxShardsReached",
    });
  });

  test("makes no further shard of a release that does not come up", () => {
    const given = snapshot([shard(OLD), shard(A, { phase: "Failed" })], tenant("x", { shard: OLD }));
    expect(chooseTarget(given, SMALL, "x")).toMatchObject({
      refused: "ShardFailed",
      message: expect.stringContaining(A),
    });
    expect(canDrain(given, SMALL, OLD), "nor for a drain, which finds places on the release it has").toMatchObject({
      fits: true,
    });
  });

  test.each([
    ["ShardNotFound", `${V2}-9`, []],
    ["SameShard", A, []],
    ["WrongRelease", OLD, [shard(OLD)]],
    ["Draining", B, [shard(B, { drain: "Requested" })]],
    ["NotReady", B, [shard(B, { phase: "Starting" })]],
    ["ShardFull", C, [shard(C)]],
  ] as const)("%s", (refusal, to, others) => {
    const given = snapshot([shard(A), ...others], mover, tenantsOn(C, 3));
    expect(chooseTarget(given, SMALL, "x", to)).toMatchObject({
      refused: refusal,
      message: expect.stringMatching(/./),
    });
  });

  test.each([
    ["NotFound", []],
    ["Deleting", [tenant("x", { shard: A, deleting: true })]],
    ["AlreadyMoving", [tenant("x", { shard: A, move: { from: A, to: B } })]],
    ["NotPlaced", [tenant("x")]],
  ] as const)("%s", (refusal, tenants) => {
    expect(chooseTarget(snapshot([shard(A), shard(B)], [...tenants]), SMALL, "x")).toMatchObject({ refused: refusal });
  });

  test("takes the shard that was asked for", () => {
    const given = snapshot([shard(A), shard(B), shard(C)], mover, tenantsOn(C, 2));
    expect(chooseTarget(given, SMALL, "x", B)).toEqual({ shard: B });
  });
});
