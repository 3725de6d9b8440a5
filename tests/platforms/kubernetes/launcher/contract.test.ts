import { describe } from "vitest";
import { describeLauncherContract } from "../../../ports/launcher-contract.ts";
import { KUBECONFIG, KubernetesUnderTest, VERSION } from "./platform.ts";

describe.skipIf(KUBECONFIG === undefined)("on the cluster of KUBECONFIG", () => {
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
});
