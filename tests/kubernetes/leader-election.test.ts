import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { CoordinationV1Api, CoreV1Api, V1MicroTime, type KubeConfig } from "@kubernetes/client-node";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { loadKubeConfig } from "../../src/platforms/kubernetes/client.ts";
import { LeaderElection } from "../../src/platforms/kubernetes/leader-election.ts";
import { withoutCluster } from "./support/cluster.ts";
import { CuttableProxy } from "./support/cuttable-proxy.ts";

const TIMING = { leaseMs: 1_500, renewWithinMs: 1_000, retryMs: 100 };
/** Where a leader is to stay one, also if the API server takes seconds to answer. */
const STEADY = { leaseMs: 30_000, renewWithinMs: 20_000, retryMs: 100 };

describe.skipIf(withoutCluster)("leader election (needs KUBECONFIG)", () => {
  const config = withoutCluster ? undefined! : loadKubeConfig();
  const namespace = `leader-${randomBytes(4).toString("hex")}`;
  const open: Candidate[] = [];
  beforeAll(() => config.makeApiClient(CoreV1Api).createNamespace({ body: { metadata: { name: namespace } } }));
  afterAll(() => config.makeApiClient(CoreV1Api).deleteNamespace({ name: namespace }));
  afterEach(async () => {
    for (const candidate of open.splice(0)) await candidate.election.stop();
  });

  class Candidate {
    readonly log: string[] = [];
    leader: string | undefined;
    startedAt = 0;
    stoppedAt = 0;
    readonly election: LeaderElection;
    constructor(lease: string, identity: string, by: KubeConfig = config, timing = TIMING) {
      this.election = new LeaderElection({
        config: by,
        namespace,
        name: lease,
        identity,
        address: `http://${identity}:8080`,
        timing,
        onStartedLeading: () => {
          this.startedAt = performance.now();
          this.log.push("leads");
        },
        onStoppedLeading: () => {
          this.stoppedAt = performance.now();
          this.log.push("stopped");
        },
        onLeader: (address) => void (this.leader = address),
      });
      open.push(this);
      this.election.start();
    }
  }

  it("lets one of many candidates lead, and tells all its address", async () => {
    const candidates = ["a", "b", "c", "d"].map((identity) => new Candidate("one", identity, config, STEADY));
    await expect.poll(() => candidates.filter(({ election }) => election.leading).length).toBe(1);
    const leader = candidates.find(({ election }) => election.leading)!;
    await expect.poll(() => new Set(candidates.map((candidate) => candidate.leader)).size).toBe(1);
    expect(leader.leader).toContain("http://");
    await sleep(TIMING.leaseMs * 2);
    expect(candidates.flatMap(({ log }) => log)).toEqual(["leads"]);
  });

  it("the next one leads before the lease would have run out", async () => {
    const first = new Candidate("stop", "a", config, STEADY);
    await expect.poll(() => first.election.leading).toBe(true);
    const second = new Candidate("stop", "b", config, STEADY);
    await sleep(300);
    const at = performance.now();
    await first.election.stop();
    await expect.poll(() => second.election.leading).toBe(true);
    expect(second.startedAt - at).toBeLessThan(STEADY.leaseMs);
    expect(first.log).toEqual(["leads"]);
  });

  it("another leads after the lease", async () => {
    const api = config.makeApiClient(CoordinationV1Api);
    // As a killed process leaves it; its clock was far ahead, which must not matter.
    const renewTime = new V1MicroTime(Date.now() + 86_400_000);
    await api.createNamespacedLease({
      namespace,
      body: { metadata: { name: "killed" }, spec: { holderIdentity: "dead", leaseDurationSeconds: 86400, renewTime } },
    });
    const at = performance.now();
    const candidate = new Candidate("killed", "b");
    await expect.poll(() => candidate.election.leading).toBe(true);
    expect(candidate.startedAt - at).toBeGreaterThanOrEqual(TIMING.leaseMs);
  });

  it("stops before another begins, and does not begin again", async () => {
    const proxy = await CuttableProxy.open(config);
    const first = new Candidate("cut", "a", proxy.config);
    await expect.poll(() => first.election.leading).toBe(true);
    const second = new Candidate("cut", "b");
    await sleep(300);
    proxy.cut();
    await expect.poll(() => second.election.leading).toBe(true);
    expect(first.log).toEqual(["leads", "stopped"]);
    expect(first.stoppedAt).toBeLessThan(second.startedAt);
    proxy.heal();
    await sleep(500);
    expect(first.election.leading).toBe(false);
    await proxy.close();
  }, 120_000);

  it("a silent connection ends its office, too", async () => {
    const proxy = await CuttableProxy.open(config);
    const first = new Candidate("silent", "a", proxy.config);
    await expect.poll(() => first.election.leading).toBe(true);
    const second = new Candidate("silent", "b");
    await sleep(300);
    proxy.stall();
    await expect.poll(() => second.election.leading).toBe(true);
    expect(first.log).toEqual(["leads", "stopped"]);
    expect(first.stoppedAt).toBeLessThan(second.startedAt);
    await proxy.close();
  }, 120_000);

  it("asks again as a standby whose request was never answered", async () => {
    const proxy = await CuttableProxy.open(config);
    const first = new Candidate("waiting", "a");
    await expect.poll(() => first.election.leading).toBe(true);
    const second = new Candidate("waiting", "b", proxy.config);
    await expect.poll(() => second.leader).toBe("http://a:8080");
    proxy.stall();
    await sleep(TIMING.retryMs * 2);
    await first.election.stop();
    proxy.heal();
    await expect.poll(() => second.election.leading).toBe(true);
    await proxy.close();
  }, 120_000);

  it("the one before steps down when it sees that", async () => {
    const first = new Candidate("forced", "a");
    await expect.poll(() => first.election.leading).toBe(true);
    await config.makeApiClient(CoordinationV1Api).patchNamespacedLease({
      namespace,
      name: "forced",
      body: [{ op: "replace", path: "/spec/holderIdentity", value: "somebody" }],
    });
    await expect.poll(() => first.log).toEqual(["leads", "stopped"]);
  });
});
