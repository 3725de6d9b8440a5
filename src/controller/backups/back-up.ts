import { storageOf } from "../../model/storage-name.ts";
import { setTimeout as sleep } from "node:timers/promises";
import {
  backupAt,
  backupIdOf,
  expired,
  type BackupManifest,
  type BackupRetention,
  type Verification,
} from "../../model/backup.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import type { TenantHibernation } from "../../model/sleep.ts";
import { wantedRelease, type Tenant, type TenantSpec } from "../../model/tenant.ts";
import type { BackupMeans } from "../../ports/backups.ts";
import { Catalogue, keyOf } from "./catalogue.ts";
import { readThrough, store, stored } from "./hashing.ts";
import { checkMedia, removeUnusedMedia, storeMedia } from "./media-copies.ts";
import { mebibytes } from "../../model/bytes.ts";

/** What only the recipient can read. */
export interface SealedTenant {
  name: string;
  serverName: string;
  release: string;
  config: string;
  /** What its operator wants of it. In backups of earlier versions only `hibernation`. */
  wishes?: Pick<TenantSpec, "hibernation" | "labels" | "plan" | "quotas" | "suspended">;
  hibernation?: TenantHibernation;
  secrets: TenantSecretData;
}

export interface Work {
  say(message: string): void;
  signal: AbortSignal;
  /** Milliseconds. */
  now(): number;
}

/** A move ends the connections to the database; it takes seconds. */
const DUMP_ATTEMPTS = 5;
const DUMP_RETRY_MS = 2_000;

/**
 * Backs a tenant up, wherever and whether it runs. The database comes first: media that are uploaded meanwhile are a few too many, which does
 * no harm.
 * @param runs the tenant as it runs, or ran last
 * @param askedBy asked when it is made: meanwhile, somebody else may have asked for it too
 */
export async function backUp(
  means: BackupMeans,
  runs: { tenant: Tenant; secrets: TenantSecretData },
  recipient: string,
  work: Work,
  askedBy: () => BackupManifest["by"] = () => undefined,
): Promise<BackupManifest> {
  const { target, copies, sealer } = means;
  const { tenant, secrets } = runs;
  const { name } = tenant.metadata;
  const storage = storageOf(tenant);
  const catalogue = new Catalogue(target);
  const earlier = await catalogue.all(storage);
  const startedAt = work.now();
  const id = backupIdOf(startedAt);

  const { config, serverName, release, hibernation, labels, plan, quotas, suspended } = tenant.spec;
  // What is not set is not in the text.
  const wishes = { hibernation, labels, plan, quotas, suspended } as NonNullable<SealedTenant["wishes"]>;
  const sealed: SealedTenant = { name, serverName, release, config, secrets, wishes };
  const dump = async () =>
    copies.dump(
      tenant,
      secrets,
      async (content, { counts }) => {
        const takenAt = new Date(work.now()).toISOString();
        const key = keyOf(storage, id, "database.dump");
        const saved = await store(target, key, content, (bytes) => work.say(`database: ${mebibytes(bytes)} written`));
        return { takenAt, database: { ...saved, counts } };
      },
      work.signal,
    );
  const { takenAt, database } = await repeated(dump, work);
  const keys = await sealer.seal(recipient, Buffer.from(JSON.stringify(sealed)));
  const keysStored = await store(target, keyOf(storage, id, "keys.age"), once(keys));
  work.say("media");
  const media = await storeMedia(means, storage, keyOf(storage, id, "media.ndjson.gz"), {
    last: backupAt(earlier.filter(hasAllMedia)) ?? backupAt(earlier),
    ...work,
  });
  const by = askedBy();
  const manifest: BackupManifest = {
    format: 1,
    id,
    tenant: storage,
    ...(by === undefined ? {} : { by }),
    ...(storage === name ? {} : { name }),
    serverName,
    schemaRelease: tenant.status.schemaRelease ?? wantedRelease(tenant),
    takenAt,
    finishedAt: new Date(work.now()).toISOString(),
    database,
    sealed: { ...keysStored, recipient },
    media,
  };
  await catalogue.add(manifest);
  return manifest;
}

async function repeated<T>(dump: () => Promise<T>, { say, signal }: Work): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await dump();
    } catch (error) {
      const isInterrupted = error instanceof UserError && error.code === "Unavailable" && isDatabases(error);
      if (!isInterrupted || attempt === DUMP_ATTEMPTS) throw error;
      say(`the database ended the connection, as it does when the tenant moves; once more (${attempt})`);
      await sleep(DUMP_RETRY_MS, undefined, { signal });
    }
  }
}

function hasAllMedia({ media }: BackupManifest): boolean {
  return media.leftOut === undefined;
}

/** A target that is away is not asked time and again: who looks at the backup wants to know it. */
function isDatabases({ message }: UserError): boolean {
  return /^(pg_dump|PostgreSQL) /.test(message);
}

/** Removes backups that are due, and what interrupted ones left. @returns how many */
export async function prune(
  means: Pick<BackupMeans, "target">,
  tenant: string,
  retention: BackupRetention,
  now: number,
): Promise<number> {
  const { target } = means;
  const catalogue = new Catalogue(target);
  const all = await catalogue.all(tenant);
  const due = new Set(expired(all, retention, now));
  // However old: with it, the only copies of media would go that the ones since then were made without.
  const lastWithMedia = backupAt(all.filter(hasAllMedia));
  if (lastWithMedia) due.delete(lastWithMedia);
  for (const backup of due) await catalogue.remove(backup);
  const complete = new Set((await catalogue.ids(tenant)).get(tenant));
  const leftovers: string[] = [];
  for await (const { key, modifiedAt } of target.list(`backups/${tenant}/`))
    if (!complete.has(key.split("/")[2] ?? "") && now - modifiedAt > LEFTOVER_MS) leftovers.push(key);
  for (const key of leftovers) await target.remove(key);
  // A list that cannot be read could name anything: nothing is taken for unused then.
  const kept = all.filter((backup) => !due.has(backup));
  if (due.size > 0 && kept.length === complete.size) await removeUnusedMedia(target, tenant, kept);
  return due.size;
}

/** Another cluster may be at a backup of a tenant of that name. */
const LEFTOVER_MS = 24 * 3_600_000;

/** Restores a backup into a scratch database, and reads all that belongs to it. */
export async function verify(means: BackupMeans, manifest: BackupManifest, work: Work): Promise<Verification> {
  const { target, copies } = means;
  const problems: string[] = [];
  const check = async (what: () => Promise<string[]>) => {
    try {
      problems.push(...(await what()));
    } catch (error) {
      if (!(error instanceof UserError && (error.code === "InvalidInput" || error.code === "NotFound"))) throw error;
      problems.push(error.message);
    }
  };
  await check(async () => {
    const { counts } = manifest.database;
    const dump = stored(target, manifest.database, (bytes) =>
      work.say(
        `database: ${mebibytes(bytes)} of ${mebibytes(manifest.database.bytes)} restored into a scratch database`,
      ),
    );
    const found = await copies.rehearse(dump, work.signal);
    return (Object.keys(counts) as (keyof typeof counts)[]).flatMap((what) =>
      found.counts[what] === counts[what]
        ? []
        : [`the restored database has ${found.counts[what]} ${what}, and ${counts[what]} were backed up`],
    );
  });
  await check(async () => {
    await readThrough(stored(target, manifest.sealed));
    return [];
  });
  work.say("media");
  await check(() => checkMedia(target, manifest, work));
  const verification = { verifiedAt: new Date(work.now()).toISOString(), ok: problems.length === 0, problems };
  await new Catalogue(target).noteVerification(manifest, verification);
  return verification;
}

/** @throws UserError InvalidInput */
export async function openSealed(
  { target, sealer }: BackupMeans,
  manifest: BackupManifest,
  identity: string,
): Promise<SealedTenant> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stored(target, manifest.sealed)) chunks.push(chunk);
  const text = Buffer.from(await sealer.open(identity, Buffer.concat(chunks))).toString("utf8");
  try {
    return JSON.parse(text) as SealedTenant;
  } catch (error) {
    throw new UserError("InvalidInput", `the keys of backup ${manifest.id} cannot be read: ${messageOf(error)}`);
  }
}

async function* once(content: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  yield content;
}
