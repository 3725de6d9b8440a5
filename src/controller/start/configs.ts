import { storageOf } from "../../model/storage-name.ts";
import { createHash } from "node:crypto";
import { authenticationDestinations } from "../../model/authentication-service.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { ownDatabase } from "../../model/homeserver-config.ts";
import type { RefusedConfig, Tenant } from "../../model/tenant.ts";
import type { ConfigInEffect } from "../../model/config-meaning.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import { familiesOf } from "../../model/metric-families.ts";
import { quotasOf, shardQuotas, type Plans } from "../../model/quota.ts";
import type { ControllerContext } from "../context.ts";

/** A configuration with the keys that belong to it. */
export type StartConfig = Required<ConfigInEffect>;

/**
 * The configuration that is asked for, and the one in effect. What runs decides: until the one asked for has been started successfully,
 * drains, consolidation, upgrades and restarts go on with what last worked.
 */
export interface TenantConfigs {
  /** By the specification and the secret; absent where its keys cannot be read. */
  asked?: StartConfig;
  /** Why there is no `asked`. */
  missing?: RefusedConfig;
  /** What runs, or ran last. */
  effective?: StartConfig;
}

type ConfigContext = Pick<ControllerContext, "store" | "plans">;

/** @throws what the store throws where it cannot be reached */
export async function configsOf(context: ConfigContext, tenant: Tenant): Promise<TenantConfigs> {
  const { store } = context;
  const { name } = tenant.metadata;
  const hash = tenant.status.inEffect?.hash;
  let asked: StartConfig | undefined;
  let missing: RefusedConfig | undefined;
  try {
    const secrets = await store.readSecret(storageOf(tenant));
    if (secrets) asked = { hash: configHash(tenant, secrets, context.plans), config: tenant.spec.config, secrets };
    else missing = missingSecret("SecretMissing", `the secret of tenant ${name} is missing; restore it from a backup`);
  } catch (error) {
    if (!(error instanceof UserError && error.code === "InvalidConfig")) throw error;
    missing = missingSecret("SecretInvalid", messageOf(error));
  }
  if (hash === undefined) return { asked, missing };
  if (asked?.hash === hash) return { asked, missing, effective: asked };
  const kept = await store.readConfigInEffect(storageOf(tenant));
  const secrets = kept?.secrets ?? asked?.secrets;
  return { asked, missing, effective: kept?.hash === hash && secrets ? { ...kept, secrets } : undefined };
}

function missingSecret(reason: string, message: string): RefusedConfig {
  return { hash: "", reason, message };
}

/** Whether the configuration asked for has been refused, so that it is not tried again until another one is asked for. */
export function isRefused({ status }: Pick<Tenant, "status">, asked: StartConfig): boolean {
  return status.refusedConfig?.hash === asked.hash;
}

/** What a tenant is to be started with, best first. Empty where its keys are gone, and it never ran. */
export function candidates(tenant: Tenant, { asked, effective }: TenantConfigs): StartConfig[] {
  const both = asked && isRefused(tenant, asked) ? [effective, asked] : [asked, effective];
  const present = both.filter((config) => config !== undefined);
  return present.filter((config, at) => present.findIndex(({ hash }) => hash === config.hash) === at);
}

/** The tenant as it is with a configuration, whatever its specification says. */
export function withConfig(tenant: Tenant, { config }: StartConfig): Tenant {
  return { ...tenant, spec: { ...tenant.spec, config } };
}

/** The tenant as it runs, or ran last, with the keys that belong to that; undefined where its keys are gone, and it never ran. */
export async function asItRuns(
  context: ConfigContext,
  tenant: Tenant,
): Promise<{ tenant: Tenant; secrets: TenantSecretData } | undefined> {
  const { asked, effective } = await configsOf(context, tenant);
  const config = effective ?? asked;
  return config && { tenant: withConfig(tenant, config), secrets: config.secrets };
}

export function bringsDatabase({ config }: Pick<StartConfig, "config">): boolean {
  return ownDatabase(config) !== undefined;
}

/** Keeps what works, so that it can be started again whatever becomes of the specification and the secret. */
export async function keepConfigInEffect(
  context: ConfigContext,
  tenant: Pick<Tenant, "metadata" | "status">,
  config: StartConfig,
): Promise<void> {
  const storage = storageOf(tenant);
  const kept = await context.store.readConfigInEffect(storage);
  if (kept?.hash !== config.hash || !kept.secrets) await context.store.writeConfigInEffect(storage, config);
}

const NOT_OF_CONFIGS: ReadonlySet<string> = new Set(["SchemaTooNew", "UnsupportedRelease", "UnknownRelease"]);

/** Whether a start would not have failed so with the configuration that last worked. */
export function isConfigsFault(tried: StartConfig, worked: StartConfig, { reason }: { reason: string }): boolean {
  if (NOT_OF_CONFIGS.has(reason)) return false;
  if (!reason.startsWith("Database") || reason === "DatabaseTaken") return true;
  const databaseOf = ({ config, secrets }: StartConfig) =>
    JSON.stringify([ownDatabase(config) ?? null, secrets.databasePassword]);
  return databaseOf(tried) !== databaseOf(worked);
}

/** Tells whether a tenant must be started again: its configuration, its keys and its plan may change without its generation. */
export function configHash(tenant: Pick<Tenant, "spec">, secrets: TenantSecretData, plans: Plans = {}): string {
  const { signingKey, macaroonSecretKey, formSecret, registrationSharedSecret, databasePassword } = secrets;
  const keys = [signingKey, macaroonSecretKey, formSecret, registrationSharedSecret, databasePassword];
  const quotas = shardQuotas(quotasOf(plans, tenant.spec));
  const { metrics } = familiesOf(tenant.spec.metrics);
  // Part of what its shard is told of networks.
  const destinations = authenticationDestinations(tenant.spec.authenticationService);
  const more = [
    ...(quotas ? [quotas] : []),
    ...(metrics ? [{ metrics }] : []),
    ...(destinations.length > 0 ? [{ destinations }] : []),
  ];
  return createHash("sha256")
    .update(JSON.stringify([tenant.spec.config, ...keys, ...more]))
    .digest("hex")
    .slice(0, 16);
}
