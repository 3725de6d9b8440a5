import { constants, createReadStream, createWriteStream } from "node:fs";
import { lstat, mkdir, open, readdir, readlink, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Bytes, MediaFile, TenantMediaFiles } from "../../../ports/backups.ts";
import type { TenantMedia } from "./tenant-media.ts";

/** Thumbnails are made again of these, and previews of URLs are asked for again. */
export const ORIGINALS = ["local_content", "remote_content"];
/** As Synapse names directories and files. */
const NAME = /^[A-Za-z0-9_-][A-Za-z0-9._:[\]-]{0,254}$/;
const DEEPEST = 6;

/**
 * Media in the directories that tenants' shards can write to. Whoever runs a shard could put links there, which we, who are perhaps
 * root, must not follow: a file is read only where it really is below the tenant's directory, and written only where no shard can get at it.
 */
export class LocalMediaFiles implements TenantMediaFiles {
  readonly #media: TenantMedia;

  constructor(media: TenantMedia) {
    this.#media = media;
  }

  async *list(tenant: string): AsyncIterable<MediaFile> {
    for (const top of ORIGINALS) yield* this.#below(tenant, top, DEEPEST);
  }

  async *#below(tenant: string, folder: string, depth: number): AsyncIterable<MediaFile> {
    const directory = await this.#media.directoryOf(tenant);
    if (directory === undefined || depth === 0) return;
    const entries = await readdir(join(directory, folder), { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const path = `${folder}/${entry.name}`;
      if (!NAME.test(entry.name)) continue;
      if (entry.isDirectory()) yield* this.#below(tenant, path, depth - 1);
      if (!entry.isFile()) continue;
      // A move may have taken the directory elsewhere since.
      const place = (await this.#media.directoryOf(tenant)) ?? directory;
      const found = await lstat(join(place, path)).catch(() => undefined);
      if (found?.isFile()) yield { path, bytes: found.size, modifiedAt: Math.floor(found.mtimeMs) };
    }
  }

  async open(tenant: string, path: string): Promise<Readable | undefined> {
    // Once more where a move took it away between two looks.
    for (let attempt = 0; attempt < 2; attempt++) {
      const directory = await this.#media.directoryOf(tenant);
      if (directory === undefined) return undefined;
      const stream = await openBelow(directory, path);
      if (stream) return stream;
    }
    return undefined;
  }

  async has(tenant: string, { path, bytes }: Pick<MediaFile, "path" | "bytes">): Promise<boolean> {
    const directory = await this.#media.directoryOf(tenant);
    return directory !== undefined && sizeOf(join(directory, path)).then((size) => size === bytes);
  }

  async hasStaged(tenant: string, { path, bytes }: Pick<MediaFile, "path" | "bytes">): Promise<boolean> {
    return (await sizeOf(join(this.#media.stagingOf(tenant), path))) === bytes;
  }

  async stage(tenant: string, path: string, content: Bytes): Promise<void> {
    if (!isMediaPath(path)) throw new Error(`${JSON.stringify(path)} is no path of a media file`);
    const file = join(this.#media.stagingOf(tenant), path);
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const draft = `${file}.part`;
    await pipeline(
      Readable.from(content, { objectMode: false }),
      createWriteStream(draft, { mode: 0o600, flush: true }),
    );
    await rename(draft, file);
  }

  async openStaged(tenant: string, path: string): Promise<Readable> {
    const file = await open(join(this.#media.stagingOf(tenant), path));
    return createReadStream("", { fd: file });
  }

  async admitStaged(tenant: string): Promise<void> {
    const staging = this.#media.stagingOf(tenant);
    if ((await stat(staging).catch(() => undefined)) === undefined) return;
    await this.#media.change(tenant, (directory) => merge(staging, directory));
    await rm(staging, { recursive: true, force: true });
  }
}

/** Whether Synapse keeps an original under such a path. */
export function isMediaPath(path: string): boolean {
  const [top = "", ...rest] = path.split("/");
  return ORIGINALS.includes(top) && rest.length > 0 && rest.length < DEEPEST && rest.every((name) => NAME.test(name));
}

/** Undefined where there is no such file, or not there. */
async function openBelow(directory: string, path: string): Promise<Readable | undefined> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
  const handle = await open(join(directory, path), flags).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP") return undefined;
    throw error;
  });
  if (!handle) return undefined;
  // Asked of what is open, so that no link that comes and goes leads elsewhere.
  const real = await readlink(`/proc/self/fd/${handle.fd}`).catch(() => undefined);
  const expected = join(await realpath(directory).catch(() => directory), path);
  const isOurs = real === undefined ? process.platform !== "linux" : real === expected;
  if (isOurs && (await handle.stat()).isFile()) return createReadStream("", { fd: handle });
  await handle.close();
  return undefined;
}

async function sizeOf(file: string): Promise<number | undefined> {
  const found = await lstat(file).catch(() => undefined);
  return found?.isFile() ? found.size : undefined;
}

/** Moves what `to` does not have. What stands in the way of a directory, such as a link, is left as it is. */
async function merge(from: string, to: string): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    const there = await lstat(target).catch(() => undefined);
    if (entry.isDirectory()) {
      if (!there) await mkdir(target);
      if (!there || there.isDirectory()) await merge(source, target);
    } else if (!there || (there.isFile() && there.size !== (await lstat(source)).size)) await rename(source, target);
  }
}
