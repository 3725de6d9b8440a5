import { wantedRelease, type Tenant } from "./tenant.ts";

/** Whether what a tenant's specification asks for is what runs. */
export const CHANGE_STATES = {
  InEffect: "what the specification asks for runs",
  Pending: "it is on its way; the reason says what it waits for",
  Refused: "it is not made, and the tenant goes on as before; another specification is needed, or the old one again",
} as const;
export type ChangeState = keyof typeof CHANGE_STATES;

export interface Change {
  state: ChangeState;
  /** One CamelCase word for machines; empty where it is in effect. */
  reason: string;
  /** One sentence for people; empty where it is in effect. */
  message: string;
}

export function changeOf(tenant: Tenant): Change {
  const { metadata, status } = tenant;
  const { refusedConfig, refusedRelease } = status;
  const wanted = wantedRelease(tenant);
  if (refusedRelease?.release === wanted && wanted !== "")
    return { state: "Refused", reason: refusedRelease.reason, message: refusedRelease.message };
  if (status.observedGeneration !== metadata.generation || status.move?.reason === "ConfigChanged")
    return pending(status.reason, status.message || "the last change of the specification has not taken effect yet");
  if (refusedConfig) return { state: "Refused", reason: refusedConfig.reason, message: refusedConfig.message };
  // Everything else is taken up when it is resumed.
  if (status.phase === "Suspended") return { state: "InEffect", reason: "", message: "" };
  const asleep = status.phase === "Asleep";
  const { admittedConfig } = status.sleep ?? {};
  if (asleep && admittedConfig !== undefined && admittedConfig !== status.configHash)
    return pending("Asleep", "it takes effect when the tenant is woken");
  const present = asleep ? status.schemaRelease : wanted;
  const release = status.shard === undefined ? present : releaseOf(status.shard);
  if (wanted !== "" && release !== wanted)
    return pending("UpgradePending", `it runs ${release}, and is to run ${wanted}`);
  const runs = ["Running", "Moving", "FallingAsleep", "Asleep"].includes(status.phase);
  return runs
    ? { state: "InEffect", reason: "", message: "" }
    : pending(status.reason, status.message || `it is ${status.phase}`);
}

function pending(reason: string, message: string): Change {
  return { state: "Pending", reason: reason || "Pending", message };
}

/** A shard is named RELEASE-INDEX. */
function releaseOf(shard: string): string {
  return shard.replace(/-\d+$/, "");
}
