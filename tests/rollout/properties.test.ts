import * as fc from "fast-check";
import { expect, it } from "vitest";
import { windowAt } from "../../src/model/windows.ts";
import { SimulatedFleet } from "./builders.ts";

const WINDOWS = [{ schedule: "*/20 * * * *", durationMinutes: 7, timezone: "UTC" }];

const scenario = fc.record({
  tenants: fc.integer({ min: 0, max: 25 }),
  count: fc.integer({ min: 0, max: 4 }),
  waveSize: fc.integer({ min: 1, max: 6 }),
  maxConcurrentMoves: fc.integer({ min: 1, max: 5 }),
  soakSeconds: fc.constantFrom(0, 30, 200),
  windows: fc.constantFrom([], WINDOWS),
  maxFailures: fc.integer({ min: 1, max: 3 }),
  onFailure: fc.constantFrom("Halt" as const, "RollBack" as const),
  broken: fc.array(fc.integer({ min: 0, max: 24 }), { maxLength: 4 }),
  steps: fc.array(
    fc.record({
      settles: fc.array(fc.integer({ min: 0, max: 29 })),
      waits: fc.integer({ min: 1, max: 300 }),
      joins: fc.boolean(),
    }),
    { maxLength: 40 },
  ),
});

function law(name: string, holds: boolean): void {
  if (!holds) throw new Error(`broken: ${name}`);
}

it("keeps the laws of a rollout, whatever happens", () => {
  fc.assert(
    fc.property(scenario, ({ tenants, broken, steps, count, ...policy }) => {
      const names = Array.from({ length: tenants }, (_, index) => `t${index}`);
      const fleet = new SimulatedFleet("1", { ...policy, canaries: { count, names: [] } }).add(...names);
      fleet.pass();
      fleet.settle();
      fleet.wait(1000).pass();
      for (const index of broken) fleet.breaksWith.set(`t${index}`, "2");
      fleet.set((spec) => void (spec.release = "2"));
      let joined = 0;
      for (const { settles, waits, joins } of steps) {
        const before = new Map(fleet.followers.map(({ name, given, release }) => [name, { given, release }]));
        const phaseBefore = fleet.fleet.status.phase;
        fleet.pass();
        const begun = fleet.followers.filter(
          ({ name, given }) =>
            given === "2" && before.get(name)?.release !== undefined && before.get(name)?.given !== "2",
        );
        const under = fleet.followers.filter(({ given, release }) => given === "2" && release === "1");
        const failed = fleet.followers.filter(({ given, broken: is }) => given === "2" && is).length;
        const idle = phaseBefore === "Idle";
        const began = begun.length > 0;
        law("not too many at once", !began || under.length <= policy.maxConcurrentMoves);
        law("none outside of a window", !began || windowAt(policy.windows, fleet.now).open);
        law("none after it was halted", !began || !["Halted", "RollingBack", "RolledBack"].includes(phaseBefore));
        law("none after too many failures", !began || idle || failed < policy.maxFailures);
        const { status } = fleet.fleet;
        const done = status.phase === "Idle" && status.release === "2" && status.reason === "";
        law("done means that everybody has it", !done || fleet.followers.every((f) => f.broken || f.given === "2"));
        const once = JSON.stringify(status);
        fleet.pass();
        law("decided twice, it is the same", JSON.stringify(fleet.fleet.status) === once);
        fleet.settle((name) => settles.includes(Number(name.slice(1))));
        fleet.wait(waits);
        if (joins && joined < 3) fleet.add(`t${25 + joined++}`);
      }
      fleet.run(800, 120);
      const { phase } = fleet.fleet.status;
      const all = (release: string) =>
        fleet.followers.every((f) => f.release === release || (release === "2" && f.broken));
      law("it comes to an end", ["Idle", "Halted", "RolledBack"].includes(phase));
      law("rolled back means everybody", phase !== "RolledBack" || all("1"));
      law("idle means everybody", phase !== "Idle" || all("2"));
    }),
    { numRuns: 100 },
  );
});

it("opens windows at the right hour where clocks are changed", () => {
  const nightly = [{ schedule: "30 3 * * *", durationMinutes: 30, timezone: "Europe/Berlin" }];
  const open = (time: string) => windowAt(nightly, Date.parse(time)).open;
  expect(open("2026-03-28T02:45:00Z")).toBe(true);
  expect(open("2026-03-28T01:45:00Z")).toBe(false);
  expect(open("2026-03-29T01:45:00Z")).toBe(true);
  expect(open("2026-03-29T02:05:00Z")).toBe(false);
});
