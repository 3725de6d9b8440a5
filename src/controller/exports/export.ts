import { storageOf } from "../../model/storage-name.ts";
import { createHash } from "node:crypto";
import { ARCHIVED, checksumLine, isPlainPath, type ArchiveFile, type ExportManifest } from "../../model/archive.ts";
import type { TenantCounts } from "../../model/backup.ts";
import { timeText } from "../../model/clock.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { plainHomeserver } from "../../model/plain-homeserver.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import { wantedRelease, type Tenant } from "../../model/tenant.ts";
import type { Bytes, DatabaseCopies, TenantMediaFiles } from "../../ports/backups.ts";
import type { Spool, Spooled } from "../../ports/spool.ts";
import { readmeOf } from "./readme.ts";

export interface ExportMeans {
  copies: DatabaseCopies;
  media: TenantMediaFiles;
  spool: Spool;
  /** The version of PostgreSQL whose pg_dump makes dumps. */
  postgresMajor: number;
}

export interface ExportRequest {
  /** As it runs, or ran last. */
  tenant: Tenant;
  secrets: TenantSecretData;
  /** Keys that the operator gives all tenants. */
  operatorsKeys: readonly string[];
  signal: AbortSignal;
  /** Milliseconds. */
  now(): number;
  /** What nobody expected, which the archive only says in general. */
  onBug(error: unknown): void;
}

/**
 * Everything of a tenant, for a plain Synapse. The database comes before the media: those that are uploaded meanwhile are a few too many, which
 * does no harm. The manifest comes last; where something fails on the way, what went wrong comes in its place.
 */
export async function* exportedFiles(means: ExportMeans, request: ExportRequest): AsyncGenerator<ArchiveFile> {
  const { tenant, secrets, signal } = request;
  const { serverName } = tenant.spec;
  const release = tenant.status.schemaRelease ?? wantedRelease(tenant);
  const held: Spooled[] = [];
  const sums: string[] = [];
  const hashed = (file: ArchiveFile): ArchiveFile => ({ ...file, content: noted(file, sums) });
  try {
    const { files, notes } = plainHomeserver({ ...request, serverName, config: tenant.spec.config });
    // By the time at which it was asked for: the snapshot is taken a moment later.
    const takenAt = timeText(request.now());
    const { postgresMajor } = means;
    files.set(ARCHIVED.readme, readmeOf({ serverName, release, takenAt, postgresMajor, notes }));
    for (const [path, text] of [...files].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      if (!isPlainPath(path)) throw new UserError("InvalidConfig", `the configuration names a file ${path}`);
      yield hashed(fileOf(path, text));
    }
    let counts: TenantCounts | undefined;
    const dump = await means.copies.dump(
      tenant,
      secrets,
      (content, facts) => {
        counts = facts.counts;
        return means.spool.hold(content);
      },
      signal,
      { withoutFence: true },
    );
    held.push(dump);
    sums.push(checksumLine(dump.sha256, ARCHIVED.database));
    yield { path: ARCHIVED.database, bytes: dump.bytes, content: dump.read() };
    for await (const file of means.media.list(storageOf(tenant), signal)) {
      signal.throwIfAborted();
      const content = await means.media.open(storageOf(tenant), file.path, signal);
      // Deleted since it was listed.
      if (!content) continue;
      yield hashed({
        path: `${ARCHIVED.media}/${file.path}`,
        bytes: file.bytes,
        content: first(content as Bytes, file.bytes),
      });
    }
    const checksums = sums.join("");
    const manifest: ExportManifest = {
      format: 1,
      kind: "synapse-homeserver",
      serverName,
      release,
      takenAt,
      counts: counts ?? { users: 0, devices: 0, rooms: 0, events: 0, media: 0 },
      checksums: { files: sums.length, sha256: sha256(checksums) },
    };
    yield fileOf(ARCHIVED.checksums, checksums);
    yield fileOf(ARCHIVED.manifest, `${JSON.stringify(manifest, null, 2)}\n`);
  } catch (error) {
    if (signal.aborted) throw error;
    yield fileOf(ARCHIVED.failed, `${wordsOf(error, request)}\n`);
  } finally {
    for (const spooled of held) await spooled.drop();
  }
}

function wordsOf(error: unknown, { onBug }: ExportRequest): string {
  if (error instanceof UserError) return error.message;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code !== undefined && syscall !== undefined) return `the machine of the controller: ${messageOf(error)}`;
  onBug(error);
  return "an internal error; the controller's log tells more";
}

function fileOf(path: string, text: string): ArchiveFile {
  const content = Buffer.from(text);
  async function* once() {
    yield content;
  }
  return { path, bytes: content.length, content: once() };
}

/** A file that is being uploaded grows, and is in no database yet. */
async function* first(content: Bytes, bytes: number): AsyncGenerator<Uint8Array> {
  let left = bytes;
  for await (const chunk of content) {
    if (left > 0) yield chunk.subarray(0, left);
    left -= chunk.length;
  }
}

/** Notes the hash when the content was read. */
async function* noted({ path, content }: ArchiveFile, sums: string[]): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  for await (const chunk of content) {
    hash.update(chunk);
    yield chunk;
  }
  sums.push(checksumLine(hash.digest("hex"), path));
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
