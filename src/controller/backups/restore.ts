import { storageOf } from "../../model/storage-name.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { randomUUID } from "node:crypto";
import type { BackupManifest, TenantCounts } from "../../model/backup.ts";
import { timeText } from "../../model/clock.ts";
import { UserError } from "../../model/errors.ts";
import { ownDatabase } from "../../model/homeserver-config.ts";
import { isSuspended, wantedRelease, type Tenant, type TenantSpec } from "../../model/tenant.ts";
import type { BackupMeans, BackupTarget, Bytes, DatabaseCopies } from "../../ports/backups.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import { modify } from "../../ports/store.ts";
import type { ControllerContext } from "../context.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import type { ClusterService, CreateTenantRequest } from "../service/cluster-service.ts";
import { asItRuns, bringsDatabase } from "../start/configs.ts";
import { refuseNewerSchema, refuseUnlike } from "../start/copy-checks.ts";
import { holdNames, type HeldNames } from "../tenants/holding-names.ts";
import type { TenantNames } from "../tenants/reserved-names.ts";
import { isFree, storageFor } from "../tenants/storage-names.ts";
import { openSealed, type SealedTenant, type Work } from "./back-up.ts";
import { Catalogue, nameOf } from "./catalogue.ts";
import { readThrough, stored } from "./hashing.ts";
import { stageMedia } from "./media-copies.ts";
import { mebibytes } from "../../model/bytes.ts";

/** The first tenant of a release waits until the release is installed and its schema made. */
const RUNS_WITHIN_MS = 15 * 60_000;
const POLL_MS = 100;
const SLOW_POLL_MS = 1_000;

export interface RestoreParts {
  context: ControllerContext;
  means: BackupMeans;
  service: Pick<ClusterService, "createTenant" | "wakeTenant" | "suspendTenant">;
}

/** Brings a database into an empty one. */
export type Restore = (into: DatabaseLogin) => Promise<void>;

/** A database of an earlier time. */
export interface DatabaseSource {
  /** Which, in words. */
  words: string;
  /** @param use is told what it had */
  read<T>(use: (counts: TenantCounts, restore: Restore) => Promise<T>, work: Work): Promise<T>;
}

export function readBackup<T>(
  { target, copies }: Pick<BackupMeans, "target" | "copies">,
  manifest: BackupManifest,
  work: Work,
  use: (counts: TenantCounts, restore: Restore) => Promise<T>,
): Promise<T> {
  const dump = () => stored(target, manifest.database, progressOf(manifest, work));
  return use(manifest.database.counts, (into) => copies.restore(into, dump(), work.signal));
}

/** What a target has of a database, for a start that restores it. @throws UserError */
export async function databaseIn(
  target: BackupTarget | undefined,
  storage: string,
  backup: string,
): Promise<{ counts: TenantCounts; dump: Bytes }> {
  if (!target) throw new UserError("Conflict", "no backups are configured any more");
  const { database } = await new Catalogue(target).manifest(storage, backup);
  return { counts: database.counts, dump: stored(target, database) };
}

/** Why an existing tenant cannot be brought back to a backup, or undefined. */
export function whyNotRestored({ metadata, spec, status }: Tenant): string | undefined {
  const { name } = metadata;
  if (metadata.deletionTimestamp !== undefined) return `tenant ${name} is being deleted`;
  if (status.rename) return `tenant ${name} is being renamed to ${status.rename.to}; try again after it`;
  if (spec.dedicated || status.transition || status.dedicated)
    return `tenant ${name} is dedicated; take that back first, so that it can be stopped`;
  if (isSuspended({ spec, status })) return `tenant ${name} is suspended; resume it, as a restore starts it`;
  if (status.databaseMove)
    return `the database of ${name} is on its way to ${status.databaseMove.to}; restore it after that`;
  // The second one would put aside what the first has brought, and with that lose what was there before it.
  if (status.restore)
    return `tenant ${name} is being restored (${status.restore.backup}); try again once it runs with that, or the event NotRestored says why not`;
  return undefined;
}

/**
 * Brings an existing tenant back to a backup. It serves while the database is restored beside its own; then it is stopped, the two are
 * exchanged (src/controller/start/start.ts), and it starts. Interrupted before that, nothing has happened to it. The database that a tenant brings
 * along is restored while it is stopped (src/controller/start/own-restore.ts).
 */
export async function restoreInPlace(parts: RestoreParts, tenant: Tenant, manifest: BackupManifest, work: Work) {
  const { context, means } = parts;
  const { name } = tenant.metadata;
  const storage = storageOf(tenant);
  const runs = await asItRuns(context, tenant);
  if (!runs)
    throw new UserError(
      "Conflict",
      `the keys of tenant ${name} are missing: delete the tenant, and restore it with --identity`,
    );
  const isOwn = bringsDatabase(runs.tenant.spec);
  const dump = stored(means.target, manifest.database, progressOf(manifest, work, isOwn ? "read" : "restored"));
  if (isOwn) await readThrough(dump);
  else {
    const password = runs.secrets.databasePassword;
    const facts = await means.copies.restoreBeside(storage, { password, backup: manifest.id }, dump, work.signal);
    refuseUnlike(`backup ${manifest.id}`, manifest.database.counts, facts);
    refuseNewerSchema(context, wantedRelease(tenant), facts);
  }
  await stageMedia(means, manifest, storage, work);
  const { id: backup, schemaRelease } = manifest;
  // It is read once more, and may be another tenant's of the same server name.
  return exchangeNow(parts, name, { backup, schemaRelease, ...(isOwn ? { storage: manifest.tenant } : {}) }, work);
}

/** Has the tenant started with the database that is beside its own. @returns how that went, in words */
export async function exchangeNow(
  { context, service }: Pick<RestoreParts, "context" | "service">,
  name: string,
  { words, ...what }: { backup: string; schemaRelease?: string; storage?: string; words?: string },
  work: Work,
): Promise<string> {
  const { store, clock, timing } = context;
  const id = randomUUID();
  const asked = await modify(store, "Tenant", name, (tenant) => {
    const refusal = whyNotRestored(tenant);
    if (refusal !== undefined) throw new UserError("Conflict", refusal);
    tenant.status.restore = { id, requestedAt: timeText(clock.now()), ...what };
    delete tenant.status.retryAt;
    return true;
  });
  if (!asked) throw new UserError("NotFound", `there is no tenant ${name}`);
  if (asked.status.sleep) await service.wakeTenant(name);
  work.say("the databases are exchanged");
  // Its database is restored while it is stopped.
  const own = bringsDatabase(asked.spec) ? timing.ownRestoreWithin * 1_000 : 0;
  const within = RUNS_WITHIN_MS + own;
  const ended = await until(context, name, work, ({ status }) => status.restore?.id !== id, within);
  const { lastMove, restored } = ended.status;
  if (restored?.at === asked.status.restored?.at)
    throw new UserError(
      "Conflict",
      `${name} was not restored, and goes on with the database that it has; the event NotRestored says why (synapse-shards events --for tenant/${name})`,
    );
  const blackout = lastMove?.reason === "Restored" ? `; it was away for ${lastMove.blackoutSeconds} s` : "";
  return `${name} runs with ${words ?? `backup ${what.backup}`}${blackout}`;
}

/** Makes a tenant that is gone of a backup: database, media and keys first, then the tenant. Interrupted, it goes on where it was. */
export async function restoreGone(
  parts: RestoreParts,
  name: string,
  manifest: BackupManifest,
  identity: string,
  work: Work,
): Promise<string> {
  const { context, means } = parts;
  const sealed = await openSealed(means, manifest, identity);
  const { serverName, config, release } = sealed;
  if (ownDatabase(config))
    throw new UserError(
      "Conflict",
      `${manifest.tenant} brought its database along, and is gone: a backup goes into the database of a tenant that is there, and none is made for it. docs/backups.md says what can be had of it`,
    );
  // What it was named by is its own again, so that its backups stay together.
  const storage = async () =>
    nameOf(manifest) === name && (await isFree(context, manifest.tenant))
      ? manifest.tenant
      : await storageFor(context, name, serverName);
  const spec: TenantSpec = { serverName, release, config, reclaimPolicy: "Retain" };
  return holdNames(context, { name, spec, by: `the restore of ${name}`, storage }, (held) =>
    makeAgain(parts, held, manifest, sealed, work),
  );
}

async function makeAgain(
  { context, means, service }: RestoreParts,
  { names, confirm }: HeldNames,
  manifest: BackupManifest,
  sealed: SealedTenant,
  work: Work,
): Promise<string> {
  const { name, storage } = names;
  const { serverName, config, release, secrets } = sealed;
  const { suspended, ...wishes } = sealed.wishes ?? { hibernation: sealed.hibernation };
  const { databases } = context;
  const { hasDatabase, stranded } = await databases.keptData(storage);
  if (stranded || (hasDatabase && (await means.copies.inPlace(storage)) !== manifest.id))
    throw new UserError(
      "AlreadyExists",
      `a database of an earlier tenant ${name} is kept: bring it back with undelete, or remove it with purge, or give another name`,
    );
  if (!hasDatabase) {
    const dump = stored(means.target, manifest.database, progressOf(manifest, work));
    const password = secrets.databasePassword;
    const facts = await means.copies.restoreBeside(storage, { password, backup: manifest.id }, dump, work.signal);
    refuseUnlike(`backup ${manifest.id}`, manifest.database.counts, facts);
  }
  await stageMedia(means, manifest, storage, work);
  await confirm();
  await means.media.admitStaged(storage);
  if (!hasDatabase)
    await means.copies.exchange(storage, { password: secrets.databasePassword, epoch: 0, backup: manifest.id });
  const request = { name, serverName, config, release, ...wishes } as CreateTenantRequest & { serverName: string };
  await takeIntoUse({ context, copies: means.copies, service }, request, { names, secrets }, work);
  if (!suspended) return `${name} runs with backup ${manifest.id}`;
  await service.suspendTenant(name, { lift: false });
  return `${name} has backup ${manifest.id}, and is suspended again`;
}

/** Creates the tenant whose database is in its place already, with keys of its own, and waits until it runs. */
export async function takeIntoUse(
  {
    context,
    copies,
    service,
  }: Pick<RestoreParts, "context"> & { copies: DatabaseCopies; service: Pick<ClusterService, "createTenant"> },
  request: CreateTenantRequest & { serverName: string },
  { names, secrets }: { names: TenantNames; secrets: TenantSecretData },
  work: Work,
): Promise<void> {
  const { name, serverName, storage } = names;
  await context.store.writeSecret(storage, { ...secrets, serverName });
  await service.createTenant(request, names);
  work.say("it is started");
  await until(context, name, work, ({ status }) => status.provisioned);
  await copies.settle(storage);
  await until(context, name, work, () => true);
}

/** Waits until it is so and the tenant runs. @throws UserError Conflict with what is wrong with it, Timeout */
async function until(
  { store, clock }: ControllerContext,
  name: string,
  { say, signal }: Work,
  isDone: (tenant: Tenant) => boolean,
  withinMs = RUNS_WITHIN_MS,
): Promise<Tenant> {
  for (
    const deadline = clock.now() + withinMs;
    ;
    await sleep(withinMs > RUNS_WITHIN_MS ? SLOW_POLL_MS : POLL_MS, undefined, { signal })
  ) {
    const tenant = await store.get("Tenant", name);
    if (!tenant) throw new UserError("NotFound", `tenant ${name} was deleted meanwhile`);
    const { phase, reason, message } = tenant.status;
    if (isDone(tenant) && (phase === "Running" || phase === "Asleep")) return tenant;
    const why = message || reason || phase;
    if (isDone(tenant) && phase === "Failed")
      throw new UserError("Conflict", `the restored ${name} cannot be started: ${why}`);
    if (clock.now() > deadline)
      throw new UserError("Timeout", `${name} does not run within ${withinMs / 60_000} minutes: ${why}`);
    say(`${name} is ${phase}${message === "" ? "" : `: ${message}`}`);
  }
}

function progressOf({ database }: BackupManifest, { say }: Work, how = "restored"): (bytes: number) => void {
  return (bytes) => say(`database: ${mebibytes(bytes)} of ${mebibytes(database.bytes)} ${how}`);
}
