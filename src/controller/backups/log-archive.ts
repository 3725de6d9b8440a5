import { pipeline, Readable } from "node:stream";
import { createGunzip, createGzip } from "node:zlib";
import { messageOf, UserError } from "../../model/errors.ts";
import { BaseManifestSchema, isSegment, type BaseManifest, type Segments } from "../../model/point-in-time.ts";
import type { BackupTarget, Bytes } from "../../ports/backups.ts";
import { store, stored } from "./hashing.ts";

const TOP = "point-in-time/";
/** Of interrupted bases; another controller may be at one. */
const LEFTOVER_MS = 24 * 3_600_000;
/** A log is mostly numbers and text, and the rest of a segment that was ended early is zeros. */
const FAST = { level: 1 };

/**
 * What leads to any moment, in a target:
 *
 * | key                                        | what                                                    |
 * | ------------------------------------------ | ------------------------------------------------------- |
 * | `point-in-time/SYSTEM/bases/ID/base.json`  | written last: a base without it does not count          |
 * | `point-in-time/SYSTEM/bases/ID/base.tar.gz` | the copy, as pg_basebackup makes it                    |
 * | `point-in-time/SYSTEM/log/SEGMENT.gz`      | a file of the log, under PostgreSQL's name              |
 */
export class LogArchive {
  readonly target: BackupTarget;

  constructor(target: BackupTarget) {
    this.target = target;
  }

  /** What is there, of all database servers that ever wrote here. Damaged bases are passed over. */
  async contents(): Promise<{ bases: BaseManifest[]; segments: Map<string, Segments> }> {
    const bases: BaseManifest[] = [];
    const segments = new Map<string, Map<string, number>>();
    const manifests: string[] = [];
    for await (const { key, modifiedAt } of this.target.list(TOP)) {
      const [, system = "", kind, name = "", file] = key.split("/");
      const segment = name.replace(/\.gz$/, "");
      if (kind === "bases" && file === "base.json") manifests.push(key);
      if (kind !== "log" || !isSegment(segment)) continue;
      const own = segments.get(system) ?? new Map<string, number>();
      segments.set(system, own.set(segment, modifiedAt));
    }
    for (const key of manifests) {
      const found = await this.#manifest(key);
      if (found) bases.push(found);
    }
    return { bases, segments };
  }

  async putSegment(system: string, name: string, content: Readable): Promise<void> {
    await this.target.put(segmentKey(system, name), packed(content));
  }

  /** @returns undefined where there is none @throws UserError InvalidInput at its end, where it is damaged */
  async segment(system: string, name: string): Promise<Bytes | undefined> {
    const key = segmentKey(system, name);
    try {
      return unpacked((await this.target.get(key)) as Bytes, `${key} in ${this.target.place}`);
    } catch (error) {
      if (error instanceof UserError && error.code === "NotFound") return undefined;
      throw error;
    }
  }

  /** @returns what the manifest says of it */
  putTar(system: string, id: string, tar: Bytes, onBytes: (bytes: number) => void): Promise<BaseManifest["archive"]> {
    const source = Readable.from(tar, { objectMode: false });
    return store(this.target, `${baseKey(system, id)}/base.tar.gz`, packed(source), onBytes);
  }

  async addBase(manifest: BaseManifest): Promise<void> {
    const key = `${baseKey(manifest.system, manifest.id)}/base.json`;
    await this.target.put(key, Buffer.from(JSON.stringify(manifest, null, 2)));
  }

  tar({ archive }: BaseManifest, onBytes: (bytes: number) => void): Bytes {
    return unpacked(stored(this.target, archive, onBytes), `${archive.key} in ${this.target.place}`);
  }

  /** The manifest first: what is half removed does not count. */
  async removeBase({ system, id }: Pick<BaseManifest, "system" | "id">): Promise<void> {
    for (const file of ["base.json", "base.tar.gz"]) await this.target.remove(`${baseKey(system, id)}/${file}`);
  }

  async removeSegment({ system, name }: { system: string; name: string }): Promise<void> {
    await this.target.remove(segmentKey(system, name));
  }

  /** What bases left that were interrupted. @param now milliseconds */
  async removeLeftovers(bases: readonly BaseManifest[], now: number): Promise<void> {
    const complete = new Set(bases.map(({ system, id }) => baseKey(system, id)));
    const left: string[] = [];
    for await (const { key, modifiedAt } of this.target.list(TOP)) {
      const isOfBase = key.split("/")[2] === "bases" && !key.endsWith("/base.json");
      if (isOfBase && !complete.has(key.slice(0, key.lastIndexOf("/"))) && now - modifiedAt > LEFTOVER_MS)
        left.push(key);
    }
    for (const key of left) await this.target.remove(key);
  }

  async #manifest(key: string): Promise<BaseManifest | undefined> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of await this.target.get(key)) chunks.push(chunk as Buffer);
    } catch (error) {
      // Removed since it was listed.
      if (error instanceof UserError && error.code === "NotFound") return undefined;
      throw error;
    }
    const read = BaseManifestSchema.safeParse(parsed(Buffer.concat(chunks).toString("utf8")));
    return read.success && key.startsWith(`${baseKey(read.data.system, read.data.id)}/`) ? read.data : undefined;
  }
}

function baseKey(system: string, id: string): string {
  return `${TOP}${system}/bases/${id}`;
}

function segmentKey(system: string, name: string): string {
  return `${TOP}${system}/log/${name}.gz`;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function packed(content: Readable): Bytes {
  return pipeline(content, createGzip(FAST), () => {}) as Bytes;
}

async function* unpacked(content: Bytes, what: string): AsyncGenerator<Uint8Array, void, undefined> {
  let broken: unknown;
  const source = Readable.from(content, { objectMode: false });
  source.on("error", (error) => (broken = error));
  try {
    yield* pipeline(source, createGunzip(), () => {}) as Bytes;
  } catch (error) {
    if (broken !== undefined) throw broken;
    const isDamaged = String((error as NodeJS.ErrnoException).code).startsWith("Z_");
    // Otherwise nobody wants the rest.
    throw isDamaged
      ? new UserError("InvalidInput", `${what} is damaged: ${messageOf(error)}`, { cause: error })
      : error;
  }
}
