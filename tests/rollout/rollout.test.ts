import { describe, expect, it } from "vitest";
import { SimulatedFleet } from "./builders.ts";

const running = (policy = {}) => {
  const fleet = new SimulatedFleet("1", policy).add("a", "b", "c", "d", "e").run();
  expect(fleet.releases()).toBe("11111");
  expect(fleet.fleet.status).toMatchObject({ phase: "Idle", updated: 5, total: 5 });
  return fleet;
};
const upgrade = (fleet: SimulatedFleet, version = "2") => fleet.set((spec) => void (spec.release = version));

describe("a rollout", () => {
  it("at first everybody gets the fleet's at once", () => {
    const fleet = new SimulatedFleet("1").add("a", "b", "c", "d", "e");
    expect(fleet.pass()).toEqual(["a", "b", "c", "d", "e"]);
  });

  it("canary, soak, then wave by wave", () => {
    const fleet = upgrade(running());
    expect(fleet.pass()).toEqual(["a"]);
    expect(fleet.fleet.status).toMatchObject({ phase: "Canary", wave: 0, waves: 3, previousRelease: "1" });
    fleet.settle();
    expect(fleet.wait(59).pass()).toEqual([]);
    expect(fleet.wait(1).pass()).toEqual(["b", "c"]);
    expect(fleet.fleet.status).toMatchObject({ phase: "Progressing", wave: 1, updated: 1 });
    fleet.settle((name) => name === "b");
    expect(fleet.wait(600).pass()).toEqual([]);
    fleet.settle();
    expect(fleet.wait(60).pass()).toEqual(["d", "e"]);
    fleet.settle();
    expect(fleet.pass()).toEqual([]);
    expect(fleet.fleet.status.phase).toBe("Progressing");
    fleet.wait(60).pass();
    expect(fleet.fleet.status).toMatchObject({ phase: "Idle", updated: 5, message: "" });
    expect(fleet.releases()).toBe("22222");
  });

  it("named canaries come first, whatever their age", () => {
    const fleet = upgrade(running({ canaries: { count: 0, names: ["d"] } }));
    expect(fleet.pass()).toEqual(["d"]);
  });

  it("keeps to the bound of moves at once", () => {
    const fleet = upgrade(running({ canaries: { count: 4, names: [] }, maxConcurrentMoves: 3 }));
    expect(fleet.pass()).toEqual(["a", "b", "c"]);
    fleet.settle((name) => name === "b");
    expect(fleet.pass()).toEqual(["d"]);
  });

  it("a canary that breaks halts the rollout, and it stays halted", () => {
    const fleet = running();
    fleet.breaksWith.set("a", "2");
    upgrade(fleet).run();
    expect(fleet.releases()).toBe("21111");
    expect(fleet.fleet.status).toMatchObject({ phase: "Halted", reason: "TooManyFailures", failed: ["a"] });
    Object.assign(fleet.of("a"), { broken: false, well: true });
    fleet.run();
    expect(fleet.releases()).toBe("21111");
    // Its owner has mended it, and says so by changing the spec.
    fleet.set((spec) => void (spec.rollout.maxFailures = 2)).run();
    expect(fleet.releases()).toBe("22222");
  });

  it("a canary whose move fails halts the rollout", () => {
    const fleet = running();
    fleet.refuses.set("a", "2");
    upgrade(fleet).run();
    expect(fleet.fleet.status).toMatchObject({ phase: "Halted", failed: ["a"] });
    expect(fleet.releases()).toBe("11111");
  });

  it("shards that never come up halt the rollout after the deadline", () => {
    const fleet = running();
    fleet.absent.add("2");
    upgrade(fleet).pass();
    expect(fleet.wait(599).pass()).toEqual([]);
    expect(fleet.fleet.status.phase).toBe("Canary");
    fleet.wait(1).pass();
    expect(fleet.fleet.status).toMatchObject({ phase: "Halted", reason: "TooManyFailures", failed: ["a"] });
  });

  it("with RollBack the canaries want the old release again", () => {
    const fleet = running({ onFailure: "RollBack" });
    fleet.absent.add("2");
    upgrade(fleet).run();
    expect(fleet.fleet.status).toMatchObject({ phase: "RolledBack", failed: ["a"] });
    expect(fleet.followers.every(({ given }) => given === "1")).toBe(true);
  });

  it("waits where there is no place, and goes on when there is one", () => {
    const fleet = running();
    fleet.absent.add("2");
    upgrade(fleet).pass();
    fleet.of("a").underWay = true;
    fleet.wait(3600).pass();
    expect(fleet.fleet.status.phase).toBe("Canary");
    fleet.absent.clear();
    fleet.settle();
    fleet.of("a").underWay = false;
    expect(fleet.run().releases()).toBe("22222");
  });

  it("with RollBack tenants go back, and nothing begins again", () => {
    const fleet = running({ onFailure: "RollBack", maxFailures: 1 });
    fleet.breaksWith.set("c", "2");
    upgrade(fleet).run();
    expect(fleet.releases()).toBe("11111");
    expect(fleet.followers.every(({ well }) => well)).toBe(true);
    expect(fleet.fleet.status).toMatchObject({ phase: "RolledBack", failed: ["c"] });
    expect(fleet.run().releases()).toBe("11111");
  });

  it("moves nothing outside of maintenance windows, and says when the next one opens", () => {
    const windows = [{ schedule: "0 2 * * *", durationMinutes: 60, timezone: "Europe/Berlin" }];
    const fleet = upgrade(running({ windows }));
    expect(fleet.pass()).toEqual([]);
    expect(fleet.fleet.status).toMatchObject({ phase: "WaitingForWindow", nextWindow: "2026-01-06T01:00:00.000Z" });
    fleet.now = Date.parse("2026-01-06T01:00:00Z");
    expect(fleet.pass()).toEqual(["a"]);
    fleet.settle();
    expect(fleet.wait(3600).pass()).toEqual([]);
    expect(fleet.fleet.status.phase).toBe("WaitingForWindow");
  });

  it("makes no progress while it is paused", () => {
    const fleet = upgrade(running());
    fleet.set((spec) => void (spec.rollout.paused = true)).run();
    expect(fleet.releases()).toBe("11111");
    expect(fleet.fleet.status.phase).toBe("Paused");
    expect(
      fleet
        .set((spec) => void (spec.rollout.paused = false))
        .run()
        .releases(),
    ).toBe("22222");
  });

  it("until the canaries have passed it gets the old one", () => {
    const fleet = upgrade(running());
    fleet.pass();
    fleet.add("f").pass();
    expect(fleet.of("f").given).toBe("1");
    fleet.settle();
    fleet.wait(60).pass();
    fleet.add("g").pass();
    expect(fleet.of("g").given).toBe("2");
    expect(fleet.run().releases()).toBe("2222222");
  });

  it("a tenant that did not run before is left where it is, and comes along when it runs", () => {
    const fleet = running();
    Object.assign(fleet.of("a"), { broken: true, well: false });
    upgrade(fleet).run();
    expect(fleet.releases()).toBe("12222");
    expect(fleet.fleet.status).toMatchObject({ phase: "Idle", message: expect.stringContaining("do not run: a") });
    Object.assign(fleet.of("a"), { broken: false, well: true });
    expect(fleet.run().releases()).toBe("22222");
  });

  it("what breaks later halts nothing", () => {
    const fleet = upgrade(running()).run();
    Object.assign(fleet.of("c"), { broken: true, well: false });
    fleet.run();
    expect(fleet.fleet.status.phase).toBe("Idle");
  });

  it("goes back to the old release in the middle, or on to a third", () => {
    const back = upgrade(running());
    back.pass();
    back.settle();
    upgrade(back, "1").run();
    expect(back.releases()).toBe("11111");
    expect(back.fleet.status.phase).toBe("Idle");

    const on = upgrade(running());
    on.pass();
    on.settle();
    upgrade(on, "3").pass();
    expect(on.fleet.status.previousRelease).toBe("1");
    expect(on.run().releases()).toBe("33333");
  });
});
