import { createHash } from "node:crypto";
import type { ReleaseFacts } from "../../ports/launcher.ts";
import { messageOf, StartFailure, UserError } from "../../model/errors.ts";
import type { Tenant, TenantStatus } from "../../model/tenant.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import {
  ShardRefusal,
  ShardUnreachable,
  type Assignment,
  type ShardControl,
  type TenantState,
} from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { baseHomeserverConfig } from "../../model/homeserver-config.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { Migration, StoredSchema } from "../../ports/databases.ts";
import { exponential } from "../work-queue.ts";

export interface StartTarget {
  shard: string;
  release: string;
  client: ShardControl;
  /** A process that was warmed up beforehand; else one is made if the schema needs it. */
  migration?: Migration;
}

/** Epochs of one revision of a tenant's deployment (docs/control-api.md, *The fence*). */
const EPOCHS_PER_REVISION = 2 ** 32;

/**
 * Hands out the next epoch: written down before anybody uses it, so that no epoch is ever used twice.
 * @param options.above what the database itself has, where that is known
 */
export async function nextEpoch(
  context: ControllerContext,
  name: string,
  { above = 0, more = () => {} }: { above?: number; more?: (tenant: Tenant) => void } = {},
): Promise<Tenant> {
  const tenant = await modify(context.store, "Tenant", name, (t) => {
    t.status.epoch = Math.max(t.status.epoch + 1, above + 1, (t.spec.revision ?? 0) * EPOCHS_PER_REVISION + 1);
    more(t);
  });
  if (!tenant) throw new UserError("NotFound", `there is no tenant ${name}`);
  return tenant;
}

export interface Started {
  /** As it was when it was started, with the epoch and the configuration that the shard has. */
  tenant: Tenant;
  state: TenantState;
}

/**
 * Starts a tenant on a shard with a new epoch: schema first, outside the shard, then the homeserver.
 * @throws StartFailure, ShardUnreachable (what came of it is not known then)
 */
export async function startOn(context: ControllerContext, name: string, target: StartTarget): Promise<Started> {
  const stopTimer = context.metrics.tenantStartSeconds.startTimer();
  try {
    const secrets = await context.store.readSecret(name);
    if (!secrets)
      throw new StartFailure("SecretMissing", `the secret of tenant ${name} is missing; restore it from a backup`);
    // With the epoch goes what it stands for: who finds it running knows by that which configuration runs.
    const more = (t: Tenant) => {
      // Claiming its database would shut out whom it belongs to.
      const rival = context.claims.conflictOf(t);
      if (rival) throw new StartFailure(rival.reason, rival.message);
      const hash = configHash(t, secrets);
      if (hash !== t.status.configHash || t.status.observedGeneration !== t.metadata.generation) {
        t.status.failures = 0;
        // Why an earlier specification failed says nothing of this one, which is now the observed one.
        if (t.status.phase === "Failed") Object.assign(t.status, { phase: "Starting", reason: "", message: "" });
      }
      t.status.configHash = hash;
      t.status.observedGeneration = t.metadata.generation;
      delete t.status.refusedConfigHash;
    };
    const tenant = await nextEpoch(context, name, { more });
    const assignment = assignmentOf(context, tenant, secrets);
    if (tenant.status.schemaRelease !== target.release) {
      // Said by the database itself at little cost, what is wrong with it needs no Python to be found out.
      const stored = await context.databases.describe(tenant, secrets);
      const refusal = schemaRefusal(stored, target.release, context.databases.facts(target.release));
      if (refusal !== undefined) throw new StartFailure("SchemaTooNew", refusal);
      await migrate(context, tenant, target, assignment);
    }
    const state = await target.client.startTenant(name, assignment);
    await keepConfigInEffect(context, tenant);
    context.metrics.tenantStarts.inc({ result: "ok" });
    stopTimer();
    return { tenant, state };
  } catch (error) {
    if (error instanceof ShardUnreachable) throw error;
    const failure = asStartFailure(error);
    context.metrics.tenantStarts.inc({ result: failure.reason });
    throw failure;
  }
}

export function assignmentOf(context: ControllerContext, tenant: Tenant, secrets: TenantSecretData): Assignment {
  return {
    serverName: tenant.spec.serverName,
    epoch: tenant.status.epoch,
    base: baseHomeserverConfig(tenant, secrets, context.environment(tenant)),
    overrides: tenant.spec.config,
    signingKey: secrets.signingKey,
  };
}

async function migrate(
  context: ControllerContext,
  tenant: Tenant,
  target: StartTarget,
  assignment: Assignment,
): Promise<void> {
  const migration = target.migration ?? (await context.databases.migration(target.release));
  try {
    await migration.run(tenant.metadata.name, target.shard, assignment);
  } finally {
    await migration.close();
  }
  await modify(
    context.store,
    "Tenant",
    tenant.metadata.name,
    ({ status }) => void (status.schemaRelease = target.release),
  );
}

function asStartFailure(error: unknown): StartFailure {
  if (error instanceof StartFailure) return error;
  if (error instanceof ShardRefusal) return new StartFailure(error.code, error.message, { cause: error });
  if (error instanceof UserError) return new StartFailure(error.code, error.message, { cause: error });
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "StartFailed";
  return new StartFailure(/^[A-Z][A-Za-z]+$/.test(code) ? code : "StartFailed", messageOf(error), { cause: error });
}

/** Why a release cannot take a database, or undefined. */
export function schemaRefusal(
  stored: StoredSchema | undefined,
  release: string,
  facts: ReleaseFacts | undefined,
): string | undefined {
  if (!facts || !stored || stored.schemaCompatVersion <= facts.schemaVersion) return undefined;
  return (
    `Synapse ${release} knows database schemas up to ${facts.schemaVersion}, and this database can only be read from schema ` +
    `${stored.schemaCompatVersion} on; choose a newer release, or restore a backup made with ${release}`
  );
}

/** Keeps the configuration that works, with which moves go on where a newer one is refused. */
async function keepConfigInEffect({ store }: ControllerContext, { metadata, spec, status }: Tenant): Promise<void> {
  const kept = await store.readConfigInEffect(metadata.name);
  const hash = status.configHash ?? "";
  if (kept?.hash !== hash || kept.config !== spec.config)
    await store.writeConfigInEffect(metadata.name, { hash, config: spec.config });
}

/** Writes down that the tenant runs, and with what. */
export function running(status: TenantStatus, shard: string, state: TenantState): void {
  if (state.meaning && status.configHash !== undefined)
    status.inEffect = { hash: status.configHash, meaning: state.meaning };
  status.phase = "Running";
  status.reason = "";
  status.message = "";
  status.shard = shard;
  status.address = state.address ?? undefined;
  status.failures = 0;
  delete status.retryAt;
}

/** Writes down that it could not be started, and when it is tried again. @returns milliseconds until then */
export async function recordFailure(
  context: ControllerContext,
  name: string,
  shard: string,
  failure: StartFailure,
): Promise<number> {
  const delayOf = exponential(context.timing.retryFirst * 1000, context.timing.retryMost * 1000);
  let delay = 0;
  let fresh = false;
  await modify(context.store, "Tenant", name, ({ status, metadata }) => {
    const again = status.observedGeneration === metadata.generation;
    fresh = status.phase !== "Failed" || status.reason !== failure.reason || status.message !== failure.message;
    status.failures = (again ? status.failures : 0) + 1;
    delay = delayOf(status.failures);
    status.phase = "Failed";
    status.reason = failure.reason;
    status.message = failure.message;
    status.shard = shard;
    status.observedGeneration = metadata.generation;
    status.retryAt = new Date(Date.now() + delay).toISOString();
    delete status.address;
  });
  context.log.warn(
    { tenant: name, shard, reason: failure.reason, message: failure.message, delay },
    "tenant failed to start",
  );
  if (fresh) {
    await recordEvent(context, {
      type: "Warning",
      reason: failure.reason,
      object: `Tenant/${name}`,
      message: `${name} cannot be started: ${failure.message}`,
    });
  }
  return delay;
}

/** Tells whether a tenant must be started again: its configuration and its keys may change without its generation. */
export function configHash(tenant: Pick<Tenant, "spec">, secrets: TenantSecretData): string {
  const { signingKey, macaroonSecretKey, formSecret, registrationSharedSecret, databasePassword } = secrets;
  const keys = [signingKey, macaroonSecretKey, formSecret, registrationSharedSecret, databasePassword];
  return createHash("sha256")
    .update(JSON.stringify([tenant.spec.config, ...keys]))
    .digest("hex")
    .slice(0, 16);
}
