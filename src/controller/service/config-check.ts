import type { ConfigVerdict } from "../../model/config-verdict.ts";
import { StartFailure, UserError } from "../../model/errors.ts";
import { wantedRelease, type Tenant } from "../../model/tenant.ts";
import { ShardUnreachable, type ShardControl } from "../../ports/shard-control.ts";
import { judged, Postponement } from "../blame.ts";
import type { ControllerContext } from "../context.ts";
import { examine } from "../start/admission.ts";
import { bringsDatabase, configHash, configsOf, withConfig, type StartConfig } from "../start/configs.ts";
import { assignmentOf } from "../start/start.ts";

/** Has a shard judge a configuration as it does before a start. Changes nothing, and keeps nothing for the tenant. */
export async function checkConfig(context: ControllerContext, tenant: Tenant, config: string): Promise<ConfigVerdict> {
  const { asked, effective } = await configsOf(context, tenant);
  const secrets = (asked ?? effective)?.secrets;
  if (!secrets)
    return unknown(
      `tenant ${tenant.metadata.name} has no keys yet: its first configuration is judged when it is started`,
    );
  const client = shardFor(context, tenant);
  if (!client)
    return unknown(`no shard of Synapse ${wantedRelease(tenant)} runs: the configuration is judged when one does`);
  const spec = { ...tenant.spec, config };
  const candidate: StartConfig = { hash: configHash({ spec }, secrets, context.plans), config, secrets };
  try {
    const assignment = assignmentOf(context, tenant, candidate);
    const { warnings } = await examine(context, client, { tenant: withConfig(tenant, candidate), secrets, assignment });
    return { verdict: "Accepted", warnings };
  } catch (error) {
    return verdictOf(error, candidate);
  }
}

function verdictOf(error: unknown, candidate: StartConfig): ConfigVerdict {
  if (error instanceof ShardUnreachable) return unknown(`${error.message}; try again`);
  // In words that are the configuration's own, which no database has to be asked for.
  const verdict =
    error instanceof UserError && error.code === "InvalidInput" ? error : judged(error, bringsDatabase(candidate));
  if (verdict instanceof Postponement) return unknown(verdict.message);
  if (verdict instanceof StartFailure)
    return { verdict: "Refused", reason: verdict.reason, message: verdict.message, warnings: [] };
  if (verdict instanceof UserError)
    return { verdict: "Refused", reason: verdict.code, message: verdict.message, warnings: [] };
  throw verdict;
}

function unknown(message: string): ConfigVerdict {
  return { verdict: "Unknown", message, warnings: [] };
}

/** That it runs on, or any that answers and has its release. */
function shardFor({ reader, shardClients }: ControllerContext, tenant: Tenant): ShardControl | undefined {
  const { shard } = tenant.status;
  const own = shard === undefined ? undefined : shardClients.get(shard);
  const release = wantedRelease(tenant);
  if (own && shard !== undefined && reader.get("Shard", shard)?.spec.release === release) return own;
  for (const { metadata, spec } of reader.values("Shard")) {
    const client = spec.release === release ? shardClients.get(metadata.name) : undefined;
    if (client) return client;
  }
  return own;
}
