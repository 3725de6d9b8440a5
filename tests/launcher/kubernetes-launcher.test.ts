import { describe, test } from "vitest";
import { describeLauncherContract } from "./contract.ts";
import { KUBECONFIG, KubernetesUnderTest, VERSION } from "./kubernetes-platform.ts";

if (KUBECONFIG === undefined) {
  describe("launcher contract: StatefulSets", () => {
    test.skip("skipped: KUBECONFIG names no cluster to test on", () => {});
  });
} else {
  describeLauncherContract("StatefulSets", async () => {
    const kubernetes = await KubernetesUnderTest.open();
    return {
      launcher: await kubernetes.launcher(),
      version: VERSION,
      startsAgain: true,
      another: () => kubernetes.launcher(),
      crash: (shard) => kubernetes.killProcess(shard),
      close: () => kubernetes.close(),
    };
  });
}
