import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { KubernetesLauncher } from "../../../../src/platforms/kubernetes/launcher/kubernetes-launcher.ts";
import type { ProcessState } from "../../../../src/ports/launcher.ts";
import { kubectl } from "../../../kubernetes/support/run.ts";
import { stateOf, untilAnswers } from "../../../ports/launcher-contract.ts";
import { KUBECONFIG, KubernetesUnderTest, VERSION } from "./platform.ts";

/** Pods that do not come up, and options that change: what child processes do not have. */
describe.skipIf(KUBECONFIG === undefined)("on the cluster of KUBECONFIG: pods", { timeout: 480_000 }, () => {
  let kubernetes: KubernetesUnderTest;
  beforeAll(async () => void (kubernetes = await KubernetesUnderTest.open()), 480_000);
  afterAll(() => kubernetes?.close());

  async function problemOf(launcher: KubernetesLauncher, shard: string): Promise<ProcessState> {
    let seen: ProcessState | undefined;
    await expect
      .poll(
        async () => {
          seen = await launcher.observe(shard);
          return seen.state === "starting" && seen.problem !== undefined;
        },
        { interval: 200 },
      )
      .toBe(true);
    return seen!;
  }

  async function removed(launcher: KubernetesLauncher, shard: string): Promise<void> {
    await launcher.stop(shard, 5);
    await launcher.remove(shard);
    const kinds = "statefulsets,services,secrets,pods";
    expect(await kubectl("-n", kubernetes.namespace, "get", kinds, "-o", "name")).not.toContain("shard");
  }

  test.each([
    ["a tag that does not exist", "9.9.9", {}, "ImageUnavailable", /:9\.9\.9 cannot be had/],
    [
      "a pod that fits nowhere",
      VERSION,
      { resources: { requests: { cpu: "5000" } } },
      "Unschedulable",
      /Insufficient cpu/,
    ],
    [
      "a pod that a policy refuses",
      VERSION,
      { containersSecurityContext: { allowPrivilegeEscalation: true } },
      "PodRefused",
      /violates PodSecurity "restricted/,
    ],
    ["too little memory", VERSION, { resources: { limits: { memory: "40Mi" } } }, "Crashed", /OOMKilled/],
  ] as const)(
    "says why a shard does not come up for %s, and removes it",
    async (_what, tag, options, reason, words) => {
      const launcher = await kubernetes.launcher(options);
      const shard = `${tag}-7`;
      await launcher.start(shard, tag);
      expect(await problemOf(launcher, shard)).toMatchObject({
        problem: { reason, message: expect.stringMatching(words) },
      });
      // There is no process to be killed, so nothing is begun again.
      await launcher.kill(shard);
      await removed(launcher, shard);
    },
  );

  test("brings changed values to a shard that is started again, and to none that serves", async () => {
    const shard = `${VERSION}-1`;
    const first = await kubernetes.launcher({ annotations: { "a.example/b": "old" } });
    await first.start(shard, VERSION);
    const { instance } = await untilAnswers(first, shard);
    const next = await kubernetes.launcher({ annotations: { "a.example/b": "new" } });
    await next.start(shard, VERSION);
    const annotation = async () =>
      (await kubernetes.core.readNamespacedPod({ name: kubernetes.podOf(shard), namespace: kubernetes.namespace }))
        .metadata?.annotations?.["a.example/b"];
    expect((await stateOf(next, shard)).instance).toBe(instance);
    expect(await annotation()).toBe("old");
    await next.stop(shard, 20);
    await next.start(shard, VERSION);
    await untilAnswers(next, shard);
    expect(await annotation()).toBe("new");
    await removed(next, shard);
  });

  test("removes what belongs to a SynapseShard with it, without a controller", async () => {
    const shard = `${VERSION}-2`;
    const owner = await kubernetes.createShardObject(shard);
    const launcher = await kubernetes.launcher();
    await launcher.start(shard, VERSION);
    for (const kind of ["statefulset", "service", "secret"]) {
      const path = "jsonpath={.items[*].metadata.ownerReferences[*].uid}";
      expect(await kubectl("-n", kubernetes.namespace, "get", kind, "-o", path)).toContain(owner);
    }
    await kubectl("-n", kubernetes.namespace, "delete", "synapseshard", "--all");
    await expect
      .poll(() => kubectl("-n", kubernetes.namespace, "get", "statefulsets,services,secrets", "-o", "name"))
      .not.toContain("shard");
  });
});
