import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { newFleetStatus, type Fleet, type FleetStatus } from "../../src/model/fleet.ts";
import { modify } from "../../src/ports/store.ts";
import { progressOf } from "../../src/cli/commands/fleet.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => void (cluster = await startClusterUnderTest()));
afterEach(() => cluster.close());

const fleet = () => cluster.api.store.get("Fleet", "fleet");
const rolled = (status: Partial<FleetStatus>) =>
  modify(cluster.api.store, "Fleet", "fleet", (one) => void Object.assign(one.status, status));

describe("fleet", () => {
  test("is made with its first release, and changed option by option", async () => {
    expect(await cluster.cli(["fleet", "status"])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining("there is no fleet yet"),
    });
    const args = ["--canary", "clinic-test", "--window", "0 2 * * 6;4h;Europe/Berlin", "--soak", "10m"];
    expect(await cluster.printed("fleet", "set", "--release", "1.163.2", ...args)).toBe(
      "\nfleet is being brought to 1.163.2\n",
    );
    expect((await fleet())?.spec).toMatchObject({
      release: "1.163.2",
      rollout: {
        canaries: { names: ["clinic-test"], count: 0 },
        soakSeconds: 600,
        windows: [{ schedule: "0 2 * * 6", durationMinutes: 240, timezone: "Europe/Berlin" }],
        waveSize: 10,
      },
    });
    await cluster.printed("fleet", "set", "--canaries", "3", "--no-window", "--on-failure", "RollBack");
    expect((await fleet())?.spec).toMatchObject({
      release: "1.163.2",
      rollout: { canaries: { names: ["clinic-test"], count: 3 }, soakSeconds: 600, windows: [], onFailure: "RollBack" },
    });
  });

  test("is paused, resumed, and rolled back to the release before", async () => {
    await cluster.printed("fleet", "set", "--release", "1.163.2");
    expect((await cluster.cli(["fleet", "rollback"])).stderr).toContain("there is no release to go back to");
    await rolled({ release: "1.164.0", previousRelease: "1.163.2" });
    await cluster.printed("fleet", "set", "--release", "1.164.0");
    expect(await cluster.printed("fleet", "pause")).toContain("rollout of 1.164.0 is paused");
    expect((await fleet())?.spec.rollout.paused).toBe(true);
    await cluster.printed("fleet", "resume");
    expect((await fleet())?.spec.rollout.paused).toBe(false);
    expect(await cluster.printed("fleet", "rollback")).toContain("brought back to 1.163.2");
    expect((await fleet())?.spec.release).toBe("1.163.2");
  });

  test("status says how far the rollout is", async () => {
    await cluster.printed("fleet", "set", "--release", "1.164.0", "--canary", "clinic-a", "--canaries", "2");
    const status = { phase: "Progressing", release: "1.164.0", previousRelease: "1.163.2" } as const;
    await rolled({ ...status, wave: 1, waves: 4, updated: 3, total: 31, failed: ["clinic-x"] });
    expect(await cluster.printed("fleet", "status")).toMatchInlineSnapshot(`
      "
      Release:     1.164.0
      Before:      1.163.2
      Phase:       Progressing
      Reason:      -
      Tenants:     3 of 31 have the release
      Wave:        2 of 4
      Failed:      clinic-x
      Canaries:    clinic-a, the 2 oldest others
      Waves:       of 10, 2 moves at once, 60 s in between
      On failure:  Halt after 1 failed tenant
      Windows:     at any time
      "
    `);
  });

  test.each([
    [["set", "--release", "9.9.9"], "there is no release 9.9.9"],
    [["set"], "give release or rollout"],
    [["set", "--window", "0 2 * * *"], "Allowed is a cron expression, a duration and a time zone"],
    [["set", "--release", "1.163.2", "--window", "every day;4h"], "windows"],
    [["set", "--wave-size", "0"], "Allowed is a whole number from 1 to 10000"],
    [["pause"], "there is no fleet yet"],
  ])("%j is refused, and changes nothing", async (args, words) => {
    const { code, stderr } = await cluster.cli(["fleet", ...args]);
    expect(code).not.toBe(0);
    expect(stderr).toContain(words);
    expect(await fleet()).toBeUndefined();
  });
});

describe("waiting for a rollout", () => {
  const at = (spec: string, status: Partial<FleetStatus>, generation = 1) =>
    ({
      metadata: { name: "fleet", generation },
      spec: { release: spec },
      status: { ...newFleetStatus(), observedGeneration: 1, release: spec, ...status },
    }) as Fleet;

  test("ends well when all have the release, and badly when the rollout ends, or becomes another one", () => {
    expect(progressOf(at("1.164.0", { phase: "Idle" }), "1.164.0")).toHaveProperty("done");
    expect(progressOf(at("1.164.0", { phase: "Idle" }, 2), "1.164.0")).toHaveProperty("waiting");
    expect(progressOf(at("1.164.0", { phase: "Canary" }), "1.164.0")).toHaveProperty("waiting");
    for (const phase of ["Halted", "RolledBack"] as const)
      expect(progressOf(at("1.164.0", { phase }), "1.164.0")).toHaveProperty("failed");
    expect(progressOf(at("1.163.2", { phase: "Idle" }), "1.164.0")).toHaveProperty("failed");
  });
});
