import { hasPlan, type Plans } from "../../model/quota.ts";
import type { Shard } from "../../model/shard.ts";
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
  /** What to do about it, in a sentence. */
  action: string;
  /** The page of docs/runbooks that tells more. */
  runbook?: string;
}

const RETRIED = "it is tried again automatically; its log says more";
const CONFIGURATION = "correct its configuration, or take the change back";
const OTHER_OWNER =
  "remove one of the two, or give one of them another name or database; the other starts automatically";
const DATABASE = "look after the database server; the tenant starts within a minute after that";

/** What helps against the reasons that a person has to do something about. */
const ACTIONS: Record<string, string> = {
  InvalidConfig: CONFIGURATION,
  OptionNotAllowed: CONFIGURATION,
  ModuleFailed: "check the addresses and credentials that its module is configured with",
  MaxShardsReached: "raise maxTenantsPerShard or maxShardsPerSynapseImageTag, or move tenants to another release",
  ServerNameTaken: OTHER_OWNER,
  HostTaken: OTHER_OWNER,
  DatabaseTaken: OTHER_OWNER,
  SchemaTooNew: "choose the newer release again, or restore a backup from before the upgrade",
  UnknownRelease: "choose a release that there is",
  Fenced: "the table synapse_shards.fence in its database says who claims it: stop that first",
  DatabaseUnreachable: DATABASE,
  DatabaseFull: DATABASE,
  DatabaseOverloaded: DATABASE,
  DatabaseReadOnly: DATABASE,
  InstallingRelease: "wait: installing a release takes minutes",
};

const TENANT_RUNBOOKS: Record<string, string> = {
  MaxShardsReached: "SynapseShardsFull",
  ShardFailed: "SynapseShardsShardDown",
  ShardNotReady: "SynapseShardsShardDown",
};

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
      action: "put the plan back into the configuration, or give the tenant another one",
    },
  ];
}

const NO_GATEWAY: Problem = {
  severity: "Error",
  reason: "NoGateway",
  message: "no gateway is connected",
  action: "look at the gateway's log; until it is back, what it knew last still routes if it runs",
  runbook: "SynapseShardsGatewayDown",
};

function ofPlatform(message: string): Problem {
  return { severity: "Warning", reason: "Platform", message, action: "change it on the controller's machine" };
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
      action:
        phase === "Lost"
          ? "its tenants are started elsewhere automatically; its log says what held it up"
          : "its start is tried again automatically; its log says why it fails",
      runbook: "SynapseShardsShardDown",
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
      action: ACTIONS[reason] ?? RETRIED,
      runbook:
        TENANT_RUNBOOKS[reason] ??
        (phase === "Pending" ? "SynapseShardsTenantPendingTooLong" : "SynapseShardsTenantFailed"),
    });
  if (quarantine)
    problems.push({
      severity: "Warning",
      object,
      reason: "Quarantined",
      message: `tenant ${metadata.name} is quarantined: ${quarantine.message}`,
      action: "find what held its shard up, then lift the quarantine",
      runbook: "SynapseShardsTenantQuarantined",
    });
  if (throttle)
    problems.push({
      severity: "Warning",
      object,
      reason: "CpuThrottled",
      message: `tenant ${metadata.name} is throttled: it takes more than its CPU budget`,
      action: "give it a budget of its own, or make it dedicated, if it is meant to take this much",
      runbook: "SynapseShardsShardOverloaded",
    });
  return problems;
}
