import { changeOf } from "../../../model/change.ts";
import type { Tenant } from "../../../model/tenant.ts";
import type { Fleet } from "../../../model/fleet.ts";
import type { Shard } from "../../../model/shard.ts";
import type { AnyResource } from "../../../ports/store.ts";
import type { Condition } from "./resources.ts";

export type Finding = Pick<Condition, "type" | "status" | "reason" | "message">;

/**
 * What a resource's status says, in Kubernetes' own form, for `kubectl wait` and for people.
 * @param previous the conditions it had
 * @param more what the resource itself does not say
 */
export function conditionsOf(
  resource: AnyResource,
  previous: readonly Condition[],
  now: string,
  more: readonly Finding[] = [],
): Condition[] {
  return [...findingsOf(resource), ...more].map((finding) => {
    const before = previous.find(({ type }) => type === finding.type);
    return conditionOf(finding, before, now, resource.metadata.generation);
  });
}

/** @param before the one of the same type: a time changes only with the status */
export function conditionOf(
  finding: Finding,
  before: Condition | undefined,
  now: string,
  generation: number | undefined,
): Condition {
  const lastTransitionTime = before?.status === finding.status ? before.lastTransitionTime : now;
  return { ...finding, lastTransitionTime, ...(generation === undefined ? {} : { observedGeneration: generation }) };
}

function findingsOf(resource: AnyResource): Finding[] {
  switch (resource.kind) {
    case "Tenant":
      return [ready(resource), placed(resource), upToDate(resource)];
    case "Shard":
      return [shardReady(resource)];
    case "Fleet":
      return [fleetProgressing(resource), fleetHealthy(resource)];
  }
}

/** It answers. A tenant on the move, or asleep, counts as ready: its requests wait, and are answered. */
function ready({ status }: Tenant): Finding {
  const isReady =
    status.phase === "Asleep" ||
    status.phase === "FallingAsleep" ||
    status.phase === "Running" ||
    (status.phase === "Moving" && status.address !== undefined);
  return finding("Ready", isReady, status.reason || status.phase, status.message);
}

function placed({ status }: Tenant): Finding {
  if (status.dedicated && status.shard === undefined)
    return finding("Placed", true, "Dedicated", `served by ${status.dedicated.address}`);
  if (status.phase === "Asleep") return finding("Placed", true, "Asleep", "it is placed when it is woken");
  if (status.phase === "Suspended")
    return finding("Placed", status.shard === undefined, "Suspended", "it is placed when it is resumed");
  if (status.shard === undefined) return finding("Placed", false, status.reason || "Pending", status.message);
  return finding("Placed", true, "OnShard", `on shard ${status.shard}`);
}

/** It runs the release and the configuration that its spec asks for. */
function upToDate(tenant: Tenant): Finding {
  const { state, reason, message } = changeOf(tenant);
  if (state === "InEffect") return finding("UpToDate", true, "AsSpecified", "");
  const isConfig =
    state === "Refused" && tenant.status.refusedConfig !== undefined && tenant.status.refusedRelease === undefined;
  return finding("UpToDate", false, isConfig ? "ConfigRefused" : reason, message);
}

function shardReady({ status }: Shard): Finding {
  return finding(
    "Ready",
    status.phase === "Ready" || status.phase === "Draining",
    status.reason || status.phase,
    status.message,
  );
}

function fleetProgressing({ status }: Fleet): Finding {
  const isProgressing = ["Canary", "Progressing", "WaitingForWindow", "RollingBack"].includes(status.phase);
  return finding("Progressing", isProgressing, status.reason || status.phase, status.message);
}

function fleetHealthy({ status }: Fleet): Finding {
  const failed = ["Halted", "RollingBack", "RolledBack"].includes(status.phase);
  return finding("Healthy", !failed, status.reason || status.phase, status.message);
}

function finding(type: string, isTrue: boolean, reason: string, message: string): Finding {
  return { type, status: isTrue ? "True" : "False", reason, message };
}
