import { hasPlan, type Plans } from "../../model/quota.ts";
import type { Shard } from "../../model/shard.ts";
import { explained } from "../../model/catalogue/catalogue.ts";
import type { Place } from "../../model/catalogue/entry.ts";
import type { Tenant } from "../../model/tenant.ts";

/** Something that is wrong now, and what a person can do about it. */
export interface Problem {
  /** `Error`: somebody is not served. `Warning`: it will be, or something else is not as it should be. */
  severity: "Error" | "Warning";
  /** `Tenant/NAME` or `Shard/NAME`; absent: the cluster as a whole. */
  object?: string;
  /** One CamelCase word for machines. */
  reason: string;
  /** What is wrong, in a sentence. */
  message: string;
  /** What to do about it, in a sentence or two, as `explain` says of its reason. */
  action: string;
  /** The page of docs/runbooks that tells more. */
  runbook?: string;
}

/** Of what the catalogue names nothing for. */
const NOTHING_TO_DO = "It goes on automatically; nothing is to be done.";

type ToDo = Pick<Problem, "action" | "runbook">;

/** By place and reason: of 100,000 tenants that wait for the same, it is looked up once. */
const TO_DO = new Map<string, ToDo>();

/** What the catalogue says of a reason, first of those of its place. */
function toDo(reason: string, place: Place): ToDo {
  const key = `${place} ${reason}`;
  const before = TO_DO.get(key);
  if (before) return before;
  const entries = explained(reason);
  const { todo, runbook } = entries.find(({ met }) => met.includes(place)) ?? entries[0] ?? {};
  const found = { action: todo ?? NOTHING_TO_DO, ...(runbook === undefined ? {} : { runbook }) };
  // Without a code of ours nothing is worth keeping; and there may be any number of those.
  if (entries.length > 0) TO_DO.set(key, found);
  return found;
}

export interface Circumstances {
  tenants: readonly Tenant[];
  shards: readonly Shard[];
  /** How many are connected. */
  gateways: number;
  plans: Plans;
  /** What the platform finds wrong, one sentence each. */
  platform: readonly string[];
}

/** @returns errors first */
export function problemsOf({ tenants, shards, gateways, plans, platform }: Circumstances): Problem[] {
  const problems = [
    ...platform.map(ofPlatform),
    ...(gateways === 0 ? [NO_GATEWAY] : []),
    ...shards.flatMap(ofShard),
    ...tenants.flatMap(ofTenant),
    ...tenants.flatMap((tenant) => ofPlan(tenant, plans)),
  ];
  return problems.toSorted((a, b) => Number(b.severity === "Error") - Number(a.severity === "Error"));
}

/** A plan that was taken out of the configuration bounds nobody. */
function ofPlan({ metadata, spec }: Tenant, plans: Plans): Problem[] {
  if (spec.plan === undefined || hasPlan(plans, spec.plan)) return [];
  return [
    {
      severity: "Warning",
      object: `Tenant/${metadata.name}`,
      reason: "PlanMissing",
      message: `tenant ${metadata.name} has the plan ${spec.plan}, which the configuration does not have: only quotas of its own hold`,
      ...toDo("PlanMissing", "tenant"),
    },
  ];
}

const NO_GATEWAY: Problem = {
  severity: "Error",
  reason: "NoGateway",
  message: "no gateway is connected",
  ...toDo("NoGateway", "api"),
};

function ofPlatform(message: string): Problem {
  return { severity: "Warning", reason: "Platform", message, ...toDo("Platform", "api") };
}

function ofShard({ metadata, status }: Shard): Problem[] {
  const { phase, reason, message } = status;
  if (phase !== "Failed" && phase !== "Lost") return [];
  const why = `shard ${metadata.name} is ${phase} (${reason}): ${message}`;
  return [
    {
      severity: "Error",
      object: `Shard/${metadata.name}`,
      reason: reason || phase,
      message: why,
      runbook: "SynapseShardsShardDown",
      ...toDo(reason, "shard"),
    },
  ];
}

function ofTenant({ metadata, status }: Tenant): Problem[] {
  const object = `Tenant/${metadata.name}`;
  const { phase, reason, message, quarantine, throttle } = status;
  const problems: Problem[] = [];
  if (message !== "")
    problems.push({
      severity: phase === "Failed" ? "Error" : "Warning",
      object,
      reason: reason || phase,
      message: `tenant ${metadata.name} is ${phase} (${reason}): ${message}`,
      runbook: phase === "Pending" ? "SynapseShardsTenantPendingTooLong" : "SynapseShardsTenantFailed",
      ...toDo(reason, "tenant"),
    });
  if (quarantine)
    problems.push({
      severity: "Warning",
      object,
      reason: "Quarantined",
      message: `tenant ${metadata.name} is quarantined: ${quarantine.message}`,
      ...toDo("Quarantined", "tenant"),
    });
  if (throttle)
    problems.push({
      severity: "Warning",
      object,
      reason: "CpuThrottled",
      message: `tenant ${metadata.name} is throttled: it takes more than its CPU budget`,
      ...toDo("CpuThrottled", "event"),
    });
  return problems;
}
