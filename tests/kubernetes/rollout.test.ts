import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Chatter } from "./support/chatter.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation, POLICY } from "./support/installation.ts";
import { kubectl } from "./support/run.ts";
import { until } from "../support/patience.ts";

const OLD = "1.157.2";
const NEW = "1.163.2";
/** Of which there is no image. */
const MISSING = "1.163.99";
const MINUTES = 60_000;
const ROLLOUT = { canaries: { count: 0, names: ["a"] }, waveSize: 5, soakSeconds: 3 };
/** Only where nothing comes about in any time: a shard that comes up takes a minute on a busy machine. */
const IMPATIENT = { progressDeadlineSeconds: 20 };

interface FleetStatus {
  phase: string;
  message: string;
  release: string;
  failed?: string[];
  nextWindow?: string;
}

/** Rollouts that do not go well, with real images. The tests build on each other. */
describe.skipIf(withoutCluster)("rollouts on a cluster (needs KUBECONFIG and the images)", () => {
  const cluster = new Installation("rollout");
  const inNamespace = (...args: string[]) => kubectl("-n", cluster.namespace, ...args);
  const shardsOf = async () => [(await cluster.running("a")).shard, (await cluster.running("b")).shard];
  const rollOut = (imageTag: string, more: object = {}) =>
    cluster.upgrade({ fleet: { imageTag, rollout: { ...ROLLOUT, ...more } } });
  const fleet = (what: string, is: (status: FleetStatus) => boolean) =>
    until(
      what,
      async () => {
        const json = await inNamespace("get", "synapsefleet", "synapse-shards", "-o", "json");
        const { status } = JSON.parse(json) as { status: FleetStatus };
        if (is(status)) return status;
        throw new Error(JSON.stringify(status));
      },
      240,
    );
  let chatter: Chatter;

  beforeAll(async () => {
    await cluster.install({
      avgShardsLoadRedistributionThreshold: 0,
      controller: { allowLocalFederation: true },
      fleet: { imageTag: OLD, rollout: ROLLOUT },
      tenantPolicy: { ...POLICY, allowedOptions: [...POLICY.allowedOptions, "task_scheduler"] },
    });
    // Passed as it is: an older release does not know the option, a newer one finds its value wrong.
    await cluster.createTenant("a", { config: "task_scheduler: never\n" });
    await cluster.createTenant("b");
    const user = await cluster.register("a", "ada");
    chatter = await Chatter.begin(user, await cluster.logIn("a", "ada"));
  }, 8 * MINUTES);
  afterAll(() => cluster.close(), 5 * MINUTES);

  it(
    "waits, and says until when",
    async () => {
      // Half a year away, so that the test cannot run into it.
      const month = ((new Date().getUTCMonth() + 6) % 12) + 1;
      const windows = [{ schedule: `0 3 1 ${month} *`, durationMinutes: 60, timezone: "UTC" }];
      expect(await shardsOf()).toEqual([`${OLD}-0`, `${OLD}-0`]);
      await rollOut(NEW, { windows });
      const { nextWindow } = await fleet("it waits for the window", ({ phase }) => phase === "WaitingForWindow");
      expect(new Date(nextWindow!).getUTCMonth() + 1).toBe(month);
      expect(await shardsOf()).toEqual([`${OLD}-0`, `${OLD}-0`]);
    },
    8 * MINUTES,
  );

  it(
    "a release that refuses its canary is halted when the window opens",
    async () => {
      await rollOut(NEW, { windows: [{ schedule: "* * * * *", durationMinutes: 60, timezone: "UTC" }] });
      const { failed, message } = await fleet("it is halted", ({ phase }) => phase === "Halted");
      expect(failed).toEqual(["a"]);
      expect(message).toContain(NEW);
      expect((await cluster.status("a")).message).toContain("task_scheduler");
      expect(await shardsOf()).toEqual([`${OLD}-0`, `${OLD}-0`]);
      const event = await until("its event is there", async () => {
        const events = await inNamespace("get", "events", "-o", "custom-columns=R:.reason,O:.involvedObject.kind");
        return events.includes("RolloutHalted") && events;
      });
      expect(event).toMatch(/RolloutHalted +SynapseFleet/);
    },
    8 * MINUTES,
  );

  it(
    "halts a rollout to a tag that does not exist after its deadline",
    async () => {
      await rollOut(MISSING, IMPATIENT);
      await fleet("it is halted", ({ phase, release }) => phase === "Halted" && release === MISSING);
      expect(await inNamespace("get", "synapseshards")).toMatch(/1\.163\.99-0 .*Failed/);
      expect(await cluster.status("a")).toMatchObject({ phase: "Running", reason: "ShardFailed" });
      expect(await shardsOf()).toEqual([`${OLD}-0`, `${OLD}-0`]);
    },
    8 * MINUTES,
  );

  it(
    "with RollBack the canary wants the old release again, and the shard goes",
    async () => {
      await rollOut(MISSING, { ...IMPATIENT, onFailure: "RollBack" });
      const { failed } = await fleet("it is rolled back", ({ phase }) => phase === "RolledBack");
      expect(failed).toEqual(["a"]);
      await until("no such shard is left", async () => !(await inNamespace("get", "synapseshards")).includes(MISSING));
      expect(await cluster.status("a")).toMatchObject({ phase: "Running", reason: "" });
    },
    8 * MINUTES,
  );

  it(
    "goes on after a failed rollout: the canary is repaired, all arrive, and nobody notices",
    async () => {
      await cluster.helmTenant("a", {});
      await rollOut(NEW);
      await fleet("it is done", ({ phase, release }) => phase === "Idle" && release === NEW);
      expect(await shardsOf()).toEqual([`${NEW}-0`, `${NEW}-0`]);
      const { sent, kept, failures } = await chatter.end();
      expect(failures).toEqual([]);
      expect(sent.length).toBeGreaterThan(20);
      expect(kept).toEqual(sent);
    },
    8 * MINUTES,
  );
});
