import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { assert, nat, option, property } from "fast-check";
import { describe, expect, it } from "vitest";
import {
  checkPlan,
  isMeasured,
  MEASURED,
  parseBytes,
  PlansSchema,
  quotasOf,
  reachedQuotas,
  shardQuotas,
  softLimit,
  type Quotas,
} from "../../src/model/quota.ts";

const plans = PlansSchema.parse({
  small: { users: 50, mediaBytes: "10G", uploadBytes: "1M", soft: { users: 30 }, cpuShare: 0.1 },
  large: {},
});

it("reads sizes as people write them, and refuses what is none", () => {
  expect(plans["small"]).toMatchObject({ mediaBytes: 10 * 1024 ** 3, uploadBytes: 1024 ** 2 });
  expect(parseBytes("512")).toBe(512);
  expect(parseBytes("2T")).toBe(2 * 1024 ** 4);
  for (const wrong of ["", "10GB", "-1", "1.5G", "G", "999999999999999T", "1e9"])
    expect(parseBytes(wrong)).toBeUndefined();
  for (const wrong of [
    { small: { user: 1 } },
    { small: { users: -1 } },
    { small: { mediaBytes: "9999999999999T" } },
    { Small: {} },
  ])
    expect(PlansSchema.safeParse(wrong).success).toBe(false);
});

it("puts a tenant's own quotas before those of its plan, one by one", () => {
  expect(quotasOf(plans, { plan: "small", quotas: { users: 70, soft: { mediaBytes: 5 } } })).toEqual({
    users: 70,
    mediaBytes: 10 * 1024 ** 3,
    uploadBytes: 1024 ** 2,
    cpuShare: 0.1,
    soft: { users: 30, mediaBytes: 5 },
  });
  expect(quotasOf(plans, {})).toEqual({});
  // Taken out of the configuration meanwhile; and a name that every object has.
  expect(quotasOf(plans, { plan: "gone", quotas: { users: 1 } })).toEqual({ users: 1 });
  expect(quotasOf(plans, { plan: "constructor" })).toEqual({});
});

it("says which plans there are where one is asked for that there is not", () => {
  expect(() => checkPlan(plans, "medium")).toThrow('there is no plan "medium": there are large, small');
  expect(() => checkPlan({}, "medium")).toThrow("the configuration has no plans");
  expect(() => checkPlan(plans, "small")).not.toThrow();
});

describe("what is reached", () => {
  const of: Quotas = { users: 10, mediaBytes: 1000, soft: { mediaBytes: 900, databaseBytes: 500 } };

  it.each([
    ["nothing where nothing is known", {}, {}],
    ["nothing below the soft limits", { users: 7, mediaBytes: 899, databaseBytes: 499 }, {}],
    ["the soft limit, which is 80 % where nothing else is said", { users: 8 }, { users: "Soft" }],
    ["the hard limit", { users: 10, mediaBytes: 950 }, { users: "Hard", mediaBytes: "Soft" }],
    ["no hard limit where there is none", { databaseBytes: 1e12 }, { databaseBytes: "Soft" }],
    ["nothing that has no limit", { monthlyActiveUsers: 1e9 }, {}],
  ] as const)("%s", (_what, figures, expected) => {
    expect(reachedQuotas(of, figures)).toEqual(expected);
  });

  it("is the hard limit where something was refused, though the figure is below it", () => {
    expect(reachedQuotas(of, { mediaBytes: 950 }, new Set(["mediaBytes"]))).toEqual({ mediaBytes: "Hard" });
    // A limit that was lifted since refuses nothing any more.
    expect(reachedQuotas({}, { mediaBytes: 950 }, new Set(["mediaBytes"]))).toEqual({});
  });

  it("is never the hard limit before the soft one, and never less with more", () => {
    const limit = option(nat(1000), { nil: undefined });
    assert(
      property(limit, limit, nat(1000), nat(1000), (hard, soft, used, more) => {
        const quotas: Quotas = {
          ...(hard === undefined ? {} : { users: hard }),
          ...(soft === undefined ? {} : { soft: { users: soft } }),
        };
        const first = softLimit(quotas, "users");
        expect(first ?? 0).toBeLessThanOrEqual(hard ?? Number.POSITIVE_INFINITY);
        const rank = (figure: number) =>
          ["", "Soft", "Hard"].indexOf(reachedQuotas(quotas, { users: figure }).users ?? "");
        expect(rank(used + more)).toBeGreaterThanOrEqual(rank(used));
        expect(isMeasured(quotas)).toBe(hard !== undefined || soft !== undefined);
      }),
    );
  });
});

it("tells shards what they keep, in words that they know", () => {
  expect(shardQuotas({ users: 1, requestsInFlight: 2, cpuShare: 0.1, soft: { mediaBytes: 1 } })).toEqual({ users: 1 });
  expect(shardQuotas({ cpuShare: 0.1 })).toBeUndefined();
  const all = {
    users: 1,
    monthlyActiveUsers: 1,
    mediaBytes: 1,
    databaseBytes: 1,
    uploadBytes: 1,
    remoteRoomComplexity: 1,
  };
  expect(MEASURED.every((quota) => quota in all)).toBe(true);
  expect(shardQuotas(all)).toEqual(all);
  const runtime = readFileSync(resolve(import.meta.dirname, "../../multi_synapse/options/quotas.py"), "utf8");
  const fields = [...runtime.matchAll(/^ {4}(\w+): (?:int|float) \| None = None$/gm)].map(([, name = ""]) =>
    name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
  );
  expect(fields.toSorted()).toEqual(Object.keys(all).toSorted());
});
