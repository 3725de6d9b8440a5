import { storageOf } from "../../model/storage-name.ts";
import { StartFailure, UserError } from "../../model/errors.ts";
import { reasonOfRunning, type Tenant, type TenantStatus } from "../../model/tenant.ts";
import {
  ShardRefusal,
  ShardUnreachable,
  type Assignment,
  type ShardControl,
  type TenantState,
} from "../../ports/shard-control.ts";
import { NoCopy } from "../../ports/backups.ts";
import { modify } from "../../ports/store.ts";
import { WAKE_REASONS, type Wake } from "../../model/sleep.ts";
import { noteAwake } from "../../model/wake.ts";
import { baseHomeserverConfig } from "../../model/homeserver-config.ts";
import { judged, Postponement } from "../blame.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { Migration } from "../../ports/databases.ts";
import { isMoveDue } from "../../model/database-move.ts";
import { admit } from "./admission.ts";
import { bringsDatabase, keepConfigInEffect, withConfig, type StartConfig } from "./configs.ts";
import { leaveCopy, takeMoved } from "./database-move.ts";
import { restoreOwn } from "./own-restore.ts";
import { schemaRefusal } from "./schema-refusal.ts";
import { timeText } from "../../model/clock.ts";
import { exponential } from "../../model/backoff.ts";
import { familiesOf } from "../../model/metric-families.ts";
import { quotasOf, shardQuotas } from "../../model/quota.ts";
import type { ConfigMeaning } from "../../model/config-meaning.ts";

export interface StartTarget {
  shard: string;
  release: string;
  client: ShardControl;
  /** What it is started with. */
  config: StartConfig;
  /** A process that was warmed up beforehand; else one is made if the schema needs it. Closed in any case. */
  migration?: Migration;
}

/** Epochs of one revision of a tenant's deployment (docs/control-api.md, *The fence*). */
const EPOCHS_PER_REVISION = 2 ** 32;

/**
 * Hands out the next epoch: written down before anybody uses it, so that no epoch is ever used twice.
 * @param options.above what the database itself has, where that is known
 * @param options.change what is written with it
 */
export async function nextEpoch(
  context: ControllerContext,
  name: string,
  { above = 0, change = () => {} }: { above?: number; change?: (tenant: Tenant) => void } = {},
): Promise<Tenant> {
  const tenant = await modify(context.store, "Tenant", name, (t) => {
    t.status.epoch = Math.max(t.status.epoch + 1, above + 1, (t.spec.revision ?? 0) * EPOCHS_PER_REVISION + 1);
    change(t);
  });
  if (!tenant) throw new UserError("NotFound", `there is no tenant ${name}`);
  return tenant;
}

export interface Started {
  /** As it was when it was started, with the epoch that the shard has. */
  tenant: Tenant;
  state: TenantState;
}

/**
 * Starts a tenant on a shard with a new epoch: schema first, outside the shard, then the homeserver.
 * @throws StartFailure for what the tenant or its release causes; Postponement for what it does not; ShardUnreachable (what came of it is
 * not known then)
 */
export async function startOn(context: ControllerContext, tenant: Tenant, target: StartTarget): Promise<Started> {
  const stopTimer = context.metrics.tenantStartSeconds.startTimer();
  try {
    const started = await start(context, tenant, target);
    context.metrics.tenantStarts.inc({ result: "ok" });
    stopTimer();
    return started;
  } catch (error) {
    const verdict = error instanceof ShardUnreachable ? error : judged(error, bringsDatabase(target.config));
    if (verdict instanceof StartFailure || verdict instanceof Postponement)
      context.metrics.tenantStarts.inc({ result: verdict.reason });
    throw verdict;
  } finally {
    await target.migration?.close();
  }
}

async function start(context: ControllerContext, asked: Tenant, target: StartTarget): Promise<Started> {
  const { config, client, release } = target;
  const restored = asked.status.restore ? await takeRestored(context, asked, target) : asked;
  const tenant = isMoveDue(restored.status.databaseMove)
    ? await takeMoved(context, await nextEpoch(context, restored.metadata.name), config)
    : restored;
  const { name } = tenant.metadata;
  const databaseId = await admitUnlessInEffect(context, tenant, target);
  const claimed = await claim(context, tenant, config, databaseId);
  const configured = withConfig(claimed, config);
  const assignment = assignmentOf(context, claimed, config);
  if (claimed.status.schemaRelease !== release) {
    // Said by the database itself at little cost, what is wrong with it needs no Python to be found out.
    const stored = await context.databases.describe(configured, config.secrets);
    const refusal = schemaRefusal(stored, release, context.databases.facts(release));
    if (refusal !== undefined) throw new StartFailure("SchemaTooNew", refusal);
    // A copy that follows its database lacks what a migration makes, and could keep it from being made.
    await leaveCopy(context, storageOf(tenant));
    await migrate(context, claimed, target, assignment);
  }
  const state = await startAgain(client, name, assignment);
  await keepConfigInEffect(context, claimed, config);
  return { tenant: claimed, state };
}

/** What is in effect was admitted before. @returns and @throws as `admit` */
async function admitUnlessInEffect(
  context: ControllerContext,
  tenant: Tenant,
  { config, client }: StartTarget,
): Promise<string | undefined> {
  if (config.hash === tenant.status.inEffect?.hash) return undefined;
  // Also of a tenant that never ran: nothing is started with it, and a shard knows no epoch below 1.
  const assignment = { ...assignmentOf(context, tenant, config), epoch: Math.max(1, tenant.status.epoch) };
  return admit(context, client, { ...config, tenant: withConfig(tenant, config), assignment });
}

/** Exchanges its database and the one that was restored beside it, while nobody runs it. */
async function takeRestored(context: ControllerContext, tenant: Tenant, target: StartTarget): Promise<Tenant> {
  const { config, release } = target;
  const { restored } = context;
  const { name } = tenant.metadata;
  const asked = tenant.status.restore;
  if (asked && bringsDatabase(config)) {
    // It is written to, and may be another's, or where it may not connect to.
    await admitUnlessInEffect(context, tenant, target);
    const raised = await nextEpoch(context, name, { change: (t) => refuseTaken(context, t, config) });
    const problem = await restoreOwn(context, raised, config, asked, release);
    if (problem) return giveUpRestore(context, name, asked, problem);
    await restored?.media.admitStaged(storageOf(tenant));
    return noteRestored(context, name, asked, true);
  }
  if (!restored) throw new StartFailure("RestoreImpossible", "this platform restores no databases");
  const storage = storageOf(tenant);
  if (!asked) return tenant;
  if (!asked.exchanged) {
    await restored.media.admitStaged(storage);
    const { epoch } = tenant.status;
    try {
      await restored.copies.exchange(storage, {
        password: config.secrets.databasePassword,
        epoch,
        backup: asked.backup,
      });
    } catch (error) {
      if (error instanceof NoCopy) return giveUpRestore(context, name, asked, error);
      throw error;
    }
    // The database says that it was exchanged only until it is settled.
    await modify(context.store, "Tenant", name, ({ status }) => {
      if (status.restore?.id !== asked.id) return false;
      status.restore.exchanged = true;
      return true;
    });
  }
  await restored.copies.settle(storage);
  return noteRestored(context, name, asked);
}

/** @param isOwn another controller may have given the restore up, or written it down, while this one was at it: its database is another one in any case */
async function noteRestored(
  { store, clock }: ControllerContext,
  name: string,
  asked: { id: string },
  isOwn = false,
): Promise<Tenant> {
  const written = await modify(store, "Tenant", name, ({ status }) => {
    const { restore, schemaRelease } = status;
    if (restore?.id !== asked.id) {
      if (!isOwn || schemaRelease === undefined) return false;
      delete status.schemaRelease;
      return true;
    }
    const before = schemaRelease === undefined ? {} : { schemaRelease };
    status.restored = { backup: restore.backup, at: timeText(clock.now()), ...before };
    // Unknown, the schema is looked at.
    status.schemaRelease = restore.schemaRelease;
    delete status.restore;
    return true;
  });
  if (!written) throw new UserError("NotFound", `there is no tenant ${name}`);
  return written;
}

/** It goes on with the database that it has: nothing took its place. */
async function giveUpRestore(
  context: ControllerContext,
  name: string,
  { id, backup }: { id: string; backup: string },
  why: Error,
): Promise<Tenant> {
  const message = `${name} was not restored from ${backup}, and goes on with the database that it has: ${why.message}`;
  await recordEvent(context, { type: "Warning", reason: "NotRestored", object: `Tenant/${name}`, message });
  const written = await modify(context.store, "Tenant", name, ({ status }) => {
    if (status.restore?.id !== id) return false;
    delete status.restore;
    return true;
  });
  if (!written) throw new UserError("NotFound", `there is no tenant ${name}`);
  return written;
}

/** Takes the next epoch, and notes what it stands for: the next controller knows by it which configuration runs. */
function claim(
  context: ControllerContext,
  tenant: Tenant,
  config: StartConfig,
  databaseId: string | undefined,
): Promise<Tenant> {
  const change = (t: Tenant) => {
    refuseTaken(context, t, config);
    const { generation } = tenant.metadata;
    if (config.hash !== t.status.configHash || t.status.observedGeneration !== generation) {
      t.status.failures = 0;
      // Why an earlier specification failed says nothing of this one, which is now the observed one.
      if (t.status.phase === "Failed") Object.assign(t.status, { phase: "Starting", reason: "", message: "" });
    }
    t.status.configHash = config.hash;
    if (databaseId !== undefined) t.status.databaseId = databaseId;
    t.status.observedGeneration = generation;
  };
  return nextEpoch(context, tenant.metadata.name, { change });
}

/** Claiming its database would shut out whom it belongs to. @throws StartFailure */
function refuseTaken({ claims }: ControllerContext, tenant: Tenant, config: StartConfig): void {
  const rival = claims.conflictOf(withConfig(tenant, config));
  if (rival) throw new StartFailure(rival.reason, rival.message);
}

/** A shard that did not confirm an earlier stop may still run it, with an epoch that is spent. */
async function startAgain(client: ShardControl, name: string, assignment: Assignment): Promise<TenantState> {
  try {
    return await client.startTenant(name, assignment);
  } catch (error) {
    if (!(error instanceof ShardRefusal) || error.code !== "AlreadyRunning") throw error;
    await client.stopTenant(name, 0);
    return client.startTenant(name, assignment);
  }
}

export function assignmentOf(context: ControllerContext, tenant: Tenant, config: StartConfig): Assignment {
  const configured = withConfig(tenant, config);
  const environment = context.environment(configured);
  const quotas = shardQuotas(quotasOf(context.plans, tenant.spec));
  return {
    serverName: tenant.spec.serverName,
    epoch: tenant.status.epoch,
    base: baseHomeserverConfig(configured, config.secrets, environment),
    overrides: config.config,
    signingKey: config.secrets.signingKey,
    policy: {
      ...environment.policy,
      ...familiesOf(environment.policy?.metrics, tenant.spec.metrics),
      ...(quotas ? { quotas } : {}),
    },
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

/** Why a release cannot take a tenant's database, as far as is known already; else undefined. */
export async function schemaProblem(
  { databases }: ControllerContext,
  configured: Tenant,
  secrets: StartConfig["secrets"],
  release: string,
): Promise<string | undefined> {
  const facts = databases.facts(release);
  if (!facts || configured.status.schemaRelease === release) return undefined;
  return schemaRefusal(await databases.describe(configured, secrets), release, facts);
}

/** What is written down of a configuration that runs. */
export function inEffectOf(
  hash: string,
  meaning: ConfigMeaning,
  { warnings = [] }: TenantState,
): TenantStatus["inEffect"] {
  return { hash, meaning, ...(warnings.length > 0 ? { warnings } : {}) };
}

/** Writes down that the tenant runs, and with what. @returns the wake that it was, if it was one */
export function running(status: TenantStatus, shard: string, state: TenantState, now: number): Wake | undefined {
  const hash = status.configHash;
  if (status.refusedConfig?.hash === hash) delete status.refusedConfig;
  if (state.meaning && hash !== undefined) status.inEffect = inEffectOf(hash, state.meaning, state);
  status.phase = "Running";
  Object.assign(status, reasonOfRunning(status));
  status.shard = shard;
  status.address = state.address ?? undefined;
  status.failures = 0;
  delete status.retryAt;
  return noteAwake(status, now);
}

/** Tells that a tenant was woken. */
export async function tellAwake(
  context: ControllerContext,
  name: string,
  { requestedAt, reason }: Wake,
): Promise<void> {
  const { metrics, clock } = context;
  const seconds = Math.max(0, clock.age(requestedAt)) / 1000;
  metrics.wakes.inc({ reason });
  metrics.wakeSeconds.observe(seconds);
  const message = `${name} was woken in ${seconds.toFixed(2)} s: ${WAKE_REASONS[reason]}`;
  await recordEvent(context, { type: "Normal", reason: "Woke", object: `Tenant/${name}`, message });
}

/**
 * Writes down why it could not be started, and when that is retried.
 * @param failure its own, by which it is Failed; or a postponement, by which it is still Starting
 * @returns milliseconds until then
 */
export async function recordFailure(
  context: ControllerContext,
  name: string,
  shard: string,
  failure: StartFailure | Postponement,
): Promise<number> {
  const phase = failure instanceof StartFailure ? "Failed" : "Starting";
  const { reason, message } = failure;
  const delayAfter = exponential(context.timing.retryFirst * 1000, context.timing.retryMost * 1000);
  let delay = 0;
  let isNew = false;
  let isWake = false;
  await modify(context.store, "Tenant", name, ({ status, metadata }) => {
    const again = status.observedGeneration === metadata.generation;
    isWake = status.wake !== undefined;
    isNew = status.phase !== phase || status.reason !== reason || status.message !== message;
    status.failures = (again ? status.failures : 0) + 1;
    delay = delayAfter(status.failures);
    Object.assign(status, { phase, reason, message, shard, observedGeneration: metadata.generation });
    status.retryAt = timeText(context.clock.now() + delay);
    delete status.address;
  });
  if (isWake) context.metrics.wakeFailures.inc({ reason });
  context.log.warn({ tenant: name, shard, reason, message, delay }, "tenant cannot be started");
  if (isNew) {
    await recordEvent(context, {
      type: "Warning",
      reason,
      object: `Tenant/${name}`,
      message: `${name} cannot be started: ${message}`,
    });
  }
  return delay;
}
