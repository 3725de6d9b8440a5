import { pipeline, Readable } from "node:stream";
import { createGunzip, createGzip } from "node:zlib";
import type { BackupManifest } from "../../model/backup.ts";
import { UserError } from "../../model/errors.ts";
import {
  MediaOutOfReach,
  type BackupTarget,
  type Bytes,
  type MediaFile,
  type TenantMediaFiles,
} from "../../ports/backups.ts";
import { Hashed, readThrough, store, stored } from "./hashing.ts";

export interface ListedFile extends MediaFile {
  sha256: string;
}

type Say = (message: string) => void;

/** Where the content of a tenant's media files with a hash is. */
function objectKey(tenant: string, sha256: string): string {
  return `media/${tenant}/${sha256.slice(0, 2)}/${sha256}`;
}

/**
 * Stores what the target does not have. A file that is as it was at the last backup is not read again; equal files are stored once.
 * Media that are out of reach are left out, and what says so is part of the backup: the rest of it is worth having.
 * @param last the backup before
 */
export async function storeMedia(
  means: { target: BackupTarget; media: TenantMediaFiles },
  tenant: string,
  listKey: string,
  { last, say, signal }: { last: BackupManifest | undefined; say: Say; signal: AbortSignal },
): Promise<BackupManifest["media"]> {
  const { target, media } = means;
  const there = new Map<string, number>();
  for await (const { key, bytes } of target.list(`media/${tenant}/`)) there.set(key, bytes);
  const before = new Map<string, ListedFile>();
  if (last) for await (const file of listedFiles(target, last)) before.set(file.path, file);
  const count = { files: 0, totalBytes: 0, newFiles: 0, newBytes: 0 };
  let leftOut: string | undefined;

  async function* lines(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* linesInReach();
    } catch (error) {
      if (!(error instanceof MediaOutOfReach)) throw error;
      leftOut = error.message;
    }
  }
  async function* linesInReach(): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const file of media.list(tenant, signal)) {
      signal.throwIfAborted();
      const known = before.get(file.path);
      const isSame = known?.bytes === file.bytes && known.modifiedAt === file.modifiedAt;
      const sha256 = isSame ? known.sha256 : await hashOf(media, tenant, file, signal);
      // Deleted or changed since it was listed.
      if (sha256 === undefined) continue;
      const key = objectKey(tenant, sha256);
      if (there.get(key) !== file.bytes) {
        if (!(await storeFile(means, tenant, { ...file, sha256 }, signal))) continue;
        there.set(key, file.bytes);
        count.newFiles += 1;
        count.newBytes += file.bytes;
      }
      count.files += 1;
      count.totalBytes += file.bytes;
      if (count.files % 50 === 0) say(`media: ${count.files} files, ${count.newFiles} of them new`);
      yield Buffer.from(`${JSON.stringify({ ...file, sha256 })}\n`);
    }
  }
  const packed = pipeline(Readable.from(lines(), { objectMode: false }), createGzip(), () => {});
  const list = await store(target, listKey, packed as Bytes);
  return { ...list, ...count, ...(leftOut === undefined ? {} : { leftOut }) };
}

/** @returns undefined where it is not what was listed: a file that is being written is the next backup's */
async function hashOf(
  media: TenantMediaFiles,
  tenant: string,
  file: MediaFile,
  signal: AbortSignal,
): Promise<string | undefined> {
  const content = await media.open(tenant, file.path, signal);
  if (!content) return undefined;
  const hashed = new Hashed(content as Bytes, (bytes) => {
    if (bytes > file.bytes) throw new MoreThanListed();
  });
  try {
    await readThrough(hashed);
  } catch (error) {
    if (!(error instanceof MoreThanListed)) throw error;
    content.destroy();
  }
  if (hashed.bytes === file.bytes) return hashed.sha256;
  await refuseLies(media, tenant, file, signal);
  return undefined;
}

/** @returns whether it was stored as it was hashed */
async function storeFile(
  { target, media }: { target: BackupTarget; media: TenantMediaFiles },
  tenant: string,
  file: ListedFile,
  signal: AbortSignal,
): Promise<boolean> {
  const content = await media.open(tenant, file.path, signal);
  if (!content) return false;
  const key = objectKey(tenant, file.sha256);
  try {
    const { sha256: now } = await store(target, key, content as Bytes, (bytes) => {
      if (bytes > file.bytes) throw new MoreThanListed();
    });
    if (now === file.sha256) return true;
    await target.remove(key);
  } catch (error) {
    if (!(error instanceof MoreThanListed)) throw error;
    content.destroy();
  }
  await refuseLies(media, tenant, file, signal);
  return false;
}

/** Nothing that goes on without end is read or stored: a tenant's bucket is where the tenant says. */
class MoreThanListed extends Error {}

/** @throws MediaOutOfReach where a file still has the size that it was listed with, and its content has another */
async function refuseLies(
  media: TenantMediaFiles,
  tenant: string,
  file: MediaFile,
  signal: AbortSignal,
): Promise<void> {
  if (await media.has(tenant, file, signal))
    throw new MediaOutOfReach(`${file.path} is listed with ${file.bytes} bytes, and its content is not of that size`);
}

/** @throws UserError InvalidInput where the list is damaged */
export async function* listedFiles(target: BackupTarget, { media }: BackupManifest): AsyncGenerator<ListedFile> {
  const plain = pipeline(Readable.from(stored(target, media), { objectMode: false }), createGunzip(), () => {});
  let rest = "";
  try {
    for await (const chunk of plain.setEncoding("utf8")) {
      const lines = `${rest}${chunk as string}`.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield JSON.parse(line) as ListedFile;
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError("InvalidInput", `the list of media ${media.key} in ${target.place} is damaged`, {
      cause: error,
    });
  }
}

/** Reads every media file of a backup. @returns what is wrong, a sentence each */
export async function checkMedia(
  target: BackupTarget,
  manifest: BackupManifest,
  { say, signal }: { say: Say; signal: AbortSignal },
): Promise<string[]> {
  const problems: string[] = [];
  let files = 0;
  for await (const { path, bytes, sha256 } of listedFiles(target, manifest)) {
    signal.throwIfAborted();
    files += 1;
    if (files % 50 === 0) say(`media: ${files} of ${manifest.media.files} files read`);
    try {
      await readThrough(stored(target, { key: objectKey(manifest.tenant, sha256), bytes, sha256 }));
    } catch (error) {
      if (!(error instanceof UserError && (error.code === "NotFound" || error.code === "InvalidInput"))) throw error;
      problems.push(`media file ${path}: ${error.message}`);
      if (problems.length === 20) return [...problems, "and perhaps more"];
    }
  }
  if (files !== manifest.media.files)
    problems.push(`${files} media files are listed, and there were ${manifest.media.files}`);
  return problems;
}

/** Brings the media that a tenant does not have to where it can be given them. Interrupted, it goes on where it was. */
export async function stageMedia(
  { target, media }: { target: BackupTarget; media: TenantMediaFiles },
  manifest: BackupManifest,
  tenant: string,
  { say, signal }: { say: Say; signal: AbortSignal },
): Promise<number> {
  let files = 0;
  for await (const file of listedFiles(target, manifest)) {
    signal.throwIfAborted();
    if ((await media.has(tenant, file, signal)) || (await media.hasStaged(tenant, file))) continue;
    const { path, bytes, sha256 } = file;
    const content = stored(target, { key: objectKey(manifest.tenant, sha256), bytes, sha256 });
    await media.stage(tenant, path, content, signal);
    files += 1;
    if (files % 50 === 0) say(`media: ${files} files fetched`);
  }
  return files;
}

/** Removes what no backup of the tenant has any more. */
export async function removeUnusedMedia(
  target: BackupTarget,
  tenant: string,
  backups: readonly BackupManifest[],
): Promise<number> {
  const used = new Set<string>();
  for (const backup of backups)
    for await (const { sha256 } of listedFiles(target, backup)) used.add(objectKey(tenant, sha256));
  const unused: string[] = [];
  for await (const { key } of target.list(`media/${tenant}/`)) if (!used.has(key)) unused.push(key);
  for (const key of unused) await target.remove(key);
  return unused.length;
}
