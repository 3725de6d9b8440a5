import type { V1ContainerStateTerminated, V1ContainerStatus, V1Pod } from "@kubernetes/client-node";
import type { ProcessState, StartProblem } from "../../../ports/launcher.ts";
import { CONTAINER, CONTROL_PORT } from "./manifests.ts";

/** A shard's process as its pod shows it, in words for people. Pure: no clock, no API. */
export function stateOfPod(pod: V1Pod): ProcessState {
  if (pod.metadata?.deletionTimestamp) return starting("its pod is being ended, and is replaced");
  const { phase, podIP } = pod.status ?? {};
  if (phase === "Failed" || phase === "Succeeded")
    return starting(`its pod has ended (${detail(pod.status?.reason, pod.status?.message)}) and is replaced`);
  const container = pod.status?.containerStatuses?.find(({ name }) => name === CONTAINER);
  // Whether it is ready does not matter here: who does not answer is found out by asking.
  if (container?.state?.running && container.started && podIP) return { state: "running", address: addressOf(podIP) };
  return container ? stateOfContainer(container) : placing(pod);
}

function addressOf(ip: string): string {
  return `http://${ip.includes(":") ? `[${ip}]` : ip}:${CONTROL_PORT}`;
}

function placing(pod: V1Pod): ProcessState {
  const scheduled = pod.status?.conditions?.find(({ type }) => type === "PodScheduled");
  if (scheduled?.status === "False" && scheduled.reason === "Unschedulable")
    return stuck("Unschedulable", `no node takes its pod: ${scheduled.message ?? "the scheduler gives no reason"}`);
  return starting(scheduled?.status === "True" ? "its node makes its pod" : "its pod waits for the scheduler");
}

function stateOfContainer({ state, lastState, image }: V1ContainerStatus): ProcessState {
  const ended = state?.terminated ?? lastState?.terminated;
  if (state?.running)
    return starting(ended ? `it comes up again; before, ${howItEnded(ended)}` : "its process comes up");
  if (state?.terminated) return starting(`${howItEnded(state.terminated)}; it is being started again`);
  const { reason = "", message = "" } = state?.waiting ?? {};
  if (/Image|Registry/.test(reason))
    return stuck(
      "ImageUnavailable",
      `its image ${image} cannot be had (${reason === "ImagePullBackOff" ? "ErrImagePull" : reason}): ${pullDetail(message)}`,
    );
  if (reason === "CrashLoopBackOff")
    return stuck("Crashed", `${ended ? howItEnded(ended) : "its process ended"}, again and again; its log says why`);
  if (/Error|Invalid/.test(reason))
    return stuck("ContainerFailed", `its container cannot be made: ${reason}: ${message}`);
  return starting(
    ended ? `${howItEnded(ended)}; it is being started again` : "its node fetches the image and makes the container",
  );
}

/** The kubelet's words alternate between the failure and the pause after it; only the failure is of interest. */
function pullDetail(message: string): string {
  const inner = /^Back-off pulling image "[^"]*"(?:: \w+: (.*))?$/s.exec(message);
  return (inner ? (inner[1] ?? "it will be tried again") : message).slice(0, 400) || "no reason is given";
}

/** What multi_synapse says where it cannot run as it is configured; nothing else of its output is repeated here. */
const LAST_WORDS = /^multi_synapse: (.{1,300})/m;

function howItEnded({ reason, exitCode, signal, message }: V1ContainerStateTerminated): string {
  if (reason === "OOMKilled") return "its process was killed as it needed more memory than its limit (OOMKilled)";
  const how = signal ? `by signal ${signal}` : exitCode === 137 ? "by SIGKILL (137)" : `with exit code ${exitCode}`;
  const words = LAST_WORDS.exec(message ?? "")?.[1];
  return `its process ended ${how}${words === undefined ? "" : ` (${words})`}`;
}

function detail(reason: string | undefined, message: string | undefined): string {
  return [reason, message].filter(Boolean).join(": ") || "no reason is given";
}

function starting(message: string): ProcessState {
  return { state: "starting", message };
}

function stuck(reason: StartProblem["reason"], message: string): ProcessState {
  return { state: "starting", message, problem: { reason, message } };
}
