import type { V1ContainerState, V1ContainerStatus, V1Pod } from "@kubernetes/client-node";
import { describe, expect, test } from "vitest";
import { stateOfPod } from "../../../../src/platforms/kubernetes/launcher/pod-state.ts";

const IMAGE = "registry.example/shard:1.163.2";

function pod(status: Partial<V1ContainerStatus>, more: Partial<V1Pod["status"]> = {}): V1Pod {
  const container = { name: "shard", image: IMAGE, imageID: "", ready: false, restartCount: 0, ...status };
  return {
    metadata: { name: "s-0" },
    status: { phase: "Running", podIP: "10.0.0.1", containerStatuses: [container], ...more },
  };
}
const waiting = (reason: string, message = "", lastState?: V1ContainerState) =>
  stateOfPod(pod({ state: { waiting: { reason, message } }, ...(lastState ? { lastState } : {}) }));
const ended = (over: object = {}): V1ContainerState => ({ terminated: { exitCode: 1, reason: "Error", ...over } });

describe("a pod's words for people", () => {
  test("a process is running once its pod is ready", () => {
    expect(stateOfPod(pod({ state: { running: {} }, started: false }))).toEqual({
      state: "starting",
      message: "its process comes up",
    });
    const up = { state: { running: {} }, started: true, ready: false };
    expect(stateOfPod(pod(up)), "not ready is no reason").toEqual({
      state: "running",
      address: "http://10.0.0.1:9000",
    });
    expect(stateOfPod(pod(up, { podIP: "fd00::1" }))).toEqual({ state: "running", address: "http://[fd00::1]:9000" });
  });

  test("a pod that is being ended is absent", () => {
    const up = pod({ state: { running: {} }, started: true });
    expect(stateOfPod({ ...up, metadata: { deletionTimestamp: new Date() } })).toEqual({
      state: "starting",
      message: "its pod is being ended, and is replaced",
    });
  });

  test.each([
    ["ErrImagePull", "not found", "its image registry.example/shard:1.163.2 cannot be had (ErrImagePull): not found"],
    [
      "ImagePullBackOff",
      `Back-off pulling image "${IMAGE}": ErrImagePull: not found`,
      "its image registry.example/shard:1.163.2 cannot be had (ErrImagePull): not found",
    ],
    ["InvalidImageName", "bad", "its image registry.example/shard:1.163.2 cannot be had (InvalidImageName): bad"],
  ])("%s", (reason, message, words) => {
    expect(waiting(reason, message)).toEqual({
      state: "starting",
      message: words,
      problem: { reason: "ImageUnavailable", message: words },
    });
  });

  test("shows the reason of a crash during the pause after it", () => {
    expect(waiting("CrashLoopBackOff", "back-off 10s", ended({ exitCode: 137, reason: "OOMKilled" }))).toMatchObject({
      problem: { reason: "Crashed", message: expect.stringContaining("more memory than its limit (OOMKilled)") },
    });
    const words = "multi_synapse: /run/x: unknown key 'a'\n";
    expect(waiting("CrashLoopBackOff", "", ended({ exitCode: 2, message: words }))).toMatchObject({
      problem: {
        message: "its process ended with exit code 2 (/run/x: unknown key 'a'), again and again; its log says why",
      },
    });
    expect(stateOfPod(pod({ state: ended({ message: "Traceback: secret" }) }))).toEqual({
      state: "starting",
      message: "its process ended with exit code 1; it is being started again",
    });
  });

  test("says that no node takes the pod", () => {
    const unschedulable = {
      type: "PodScheduled",
      status: "False",
      reason: "Unschedulable",
      message: "0/3 nodes are available",
    };
    expect(stateOfPod({ status: { phase: "Pending", conditions: [unschedulable] } })).toMatchObject({
      problem: { reason: "Unschedulable", message: "no node takes its pod: 0/3 nodes are available" },
    });
    expect(stateOfPod({ status: { phase: "Pending" } })).toEqual({
      state: "starting",
      message: "its pod waits for the scheduler",
    });
  });

  test("an evicted pod, or a pod that cannot be made, is a problem", () => {
    expect(stateOfPod({ status: { phase: "Failed", reason: "Evicted", message: "low on disk" } })).toEqual({
      state: "starting",
      message: "its pod has ended (Evicted: low on disk) and is replaced",
    });
    expect(waiting("CreateContainerConfigError", 'secret "x" not found')).toMatchObject({
      problem: { reason: "ContainerFailed", message: expect.stringContaining('secret "x" not found') },
    });
    expect(waiting("ContainerCreating")).toEqual({
      state: "starting",
      message: "its node fetches the image and makes the container",
    });
  });
});
