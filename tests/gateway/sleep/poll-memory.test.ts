import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Route } from "../../../src/model/routes.ts";
import { PollMemory } from "../../../src/gateway/sleep/poll-memory.ts";

const AT = "s10_2_0_4_5_6";
const ANSWER = { status: 200, head: "[]", body: "{}" };

function routeOf(state: Route["state"], epoch: number, position?: string): Route {
  const route: Route = { tenant: "a", hosts: [], state, epoch };
  return position === undefined ? route : { ...route, position };
}

function remembering(maxRememberedBytes = 1024 * 1024): PollMemory {
  const memory = new PollMemory({ maxRememberedBytes });
  memory.remember("a", 1, "key", { standing: AT, position: AT }, ANSWER, 0);
  return memory;
}

describe("the memory of polls", () => {
  it("has the answer for a poll that stands where it led to, while the tenant sleeps at that position", () => {
    const memory = remembering();
    const poll = { key: "key", standing: AT };
    expect(memory.find(routeOf("asleep", 2, "s10_77_9_4_5_6"), poll)).toEqual(ANSWER);
    expect(memory.find(routeOf("asleep", 2, "s11_2_0_4_5_6"), poll)).toBeUndefined();
    expect(memory.find(routeOf("asleep", 2), poll)).toBeUndefined();
    expect(memory.find(routeOf("asleep", 2, AT), { key: "key", standing: "s9_2_0_4_5_6" })).toBeUndefined();
    expect(memory.find(routeOf("asleep", 2, AT), { key: "other", standing: AT })).toBeUndefined();
    expect(memory.find({ ...routeOf("asleep", 2, AT), tenant: "b" }, poll)).toBeUndefined();
  });

  it("forgets what was answered before the tenant was started again", () => {
    const memory = remembering();
    memory.serves("a", 1);
    expect(memory.size("a")).toBe(1);
    memory.serves("a", 2);
    expect(memory.size("a")).toBe(0);
    memory.remember("a", 2, "key", { standing: AT, position: AT }, ANSWER, 0);
    memory.remember("a", 1, "late", { standing: AT, position: AT }, ANSWER, 0);
    expect(memory.size("a")).toBe(1);
    memory.remember("a", 3, "key", { standing: AT, position: AT }, ANSWER, 0);
    expect(memory.size("a")).toBe(1);
  });

  it("drops what nobody has asked for in half an hour, but not of tenants that sleep", () => {
    const memory = remembering();
    memory.sweep(31 * 60_000, () => false);
    expect(memory.size("a")).toBe(1);
    memory.sweep(29 * 60_000, () => true);
    expect(memory.size("a")).toBe(1);
    memory.sweep(31 * 60_000, () => true);
    expect([memory.size("a"), memory.bytes]).toEqual([0, 0]);
  });

  it("stays within its bounds, of which no tenant takes more than a quarter, nor from another", () => {
    const actions = fc.array(
      fc.record({ tenant: fc.constantFrom("a", "b", "c"), key: fc.nat(30), size: fc.nat(2000), forget: fc.boolean() }),
      { maxLength: 200 },
    );
    fc.assert(
      fc.property(actions, (all) => {
        const bound = 16_000;
        const memory = new PollMemory({ maxRememberedBytes: bound });
        for (const { tenant, key, size, forget } of all) {
          const others = ["a", "b", "c"].filter((name) => name !== tenant).map((name) => memory.size(name));
          const answer = { ...ANSWER, body: "x".repeat(size) };
          if (forget) memory.forgetPoll(tenant, String(key));
          else memory.remember(tenant, 1, String(key), { standing: AT, position: AT }, answer, 0);
          expect(memory.bytes).toBeLessThanOrEqual(bound + 2);
          expect(["a", "b", "c"].filter((name) => name !== tenant).map((name) => memory.size(name))).toEqual(others);
        }
        for (const tenant of ["a", "b", "c"]) memory.forget(tenant);
        expect(memory.bytes).toBe(0);
      }),
    );
  });
});
