import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, rmdir, stat, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { once } from "node:events";
import { messageOf, UserError } from "../model/errors.ts";
import { machineProblem } from "../model/machine-problem.ts";
import type { BackupTarget, Bytes } from "../ports/backups.ts";
import { checkedKey } from "./keys.ts";

/** What is being written; never listed. */
const DRAFT = ".part";
/** One that nobody has written to for this long was left by a crash. */
const FORGOTTEN_MS = 24 * 3_600_000;

/** Backups in a directory: of this machine, or mounted there. */
export class DirectoryTarget implements BackupTarget {
  readonly place: string;
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    this.place = directory;
  }

  async put(key: string, content: Bytes | Uint8Array): Promise<void> {
    const file = this.#path(key);
    const draft = `${file}${DRAFT}`;
    await this.#at(async () => {
      await mkdir(dirname(file), { recursive: true, mode: 0o700 });
      const handle = await open(draft, "w", 0o600);
      try {
        for await (const chunk of content instanceof Uint8Array ? [content] : content) await writeAll(handle, chunk);
        await handle.sync();
      } catch (error) {
        await handle.close();
        await rm(draft, { force: true });
        throw error;
      }
      await handle.close();
      await rename(draft, file);
      await syncDirectory(dirname(file));
    });
  }

  async get(key: string): Promise<Readable> {
    const stream = createReadStream(this.#path(key));
    await this.#at(() => once(stream, "open"), key);
    return stream;
  }

  async *list(prefix: string): AsyncIterable<{ key: string; bytes: number; modifiedAt: number }> {
    const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    for (const key of await this.#at(() => this.#keysBelow(folder))) {
      if (!key.startsWith(prefix)) continue;
      const found = await this.#at(() => stat(this.#path(key))).catch(() => undefined);
      if (found) yield { key, bytes: found.size, modifiedAt: found.mtimeMs };
    }
  }

  async remove(key: string): Promise<void> {
    await this.#at(() => rm(this.#path(key), { force: true }));
    // Only where it is empty.
    await rmdir(dirname(this.#path(key))).catch(() => {});
  }

  async #keysBelow(folder: string): Promise<string[]> {
    const entries = await readdir(join(this.#directory, folder), { withFileTypes: true }).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    });
    const keys: string[] = [];
    for (const entry of entries) {
      if (entry.isDirectory()) keys.push(...(await this.#keysBelow(`${folder}${entry.name}/`)));
      else if (entry.name.endsWith(DRAFT)) await removeForgotten(join(this.#directory, folder, entry.name));
      else if (entry.isFile()) keys.push(`${folder}${entry.name}`);
    }
    return keys;
  }

  #path(key: string): string {
    return join(this.#directory, checkedKey(key));
  }

  /** @throws UserError that names the directory, for what the machine says */
  async #at<T>(work: () => Promise<T>, key?: string): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const { code, syscall } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" && key !== undefined)
        throw new UserError("NotFound", `${this.place} has no ${key}`, { cause: error });
      if (error instanceof UserError || syscall === undefined) throw error;
      const problem = machineProblem(error) ?? messageOf(error);
      const kind = code === "EACCES" || code === "EPERM" || code === "EROFS" ? "Unauthorized" : "Unavailable";
      throw new UserError(kind, `the backup directory ${this.place} cannot be used: ${problem}`, { cause: error });
    }
  }
}

/** Part of a dump may be large, and its name is never used again. */
async function removeForgotten(draft: string): Promise<void> {
  const found = await stat(draft).catch(() => undefined);
  if (found && Date.now() - found.mtimeMs > FORGOTTEN_MS) await rm(draft, { force: true });
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length;) at += (await handle.write(chunk, at, chunk.length - at)).bytesWritten;
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
