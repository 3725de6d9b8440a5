import { createWriteStream } from "node:fs";
import { chown, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { isSegment, nextSegment } from "../../../model/point-in-time.ts";
import type { RecoverySource } from "../../../ports/point-in-time.ts";
import type { RunAs } from "./postgres-user.ts";

const POLL_MS = 20;
const WANTED = ".wanted";
/** Fetched before they are asked for: a target may be far away. */
const AHEAD = 4;

/**
 * Gives a recovering server the files of the log that it asks for, and no more than a few at once: a day's log may be larger than the disk. It asks
 * by `NAME.wanted`, and gets `NAME.given` or `NAME.none`.
 */
export class LogFeed {
  readonly #directory: string;
  readonly #source: RecoverySource;
  readonly #user: RunAs | undefined;
  /** Under way, or ready: whether there is such a file. */
  readonly #fetched = new Map<string, Promise<boolean>>();
  readonly #ended = new AbortController();

  constructor(directory: string, source: RecoverySource, user: RunAs | undefined) {
    this.#directory = directory;
    this.#source = source;
    this.#user = user;
  }

  /** Rejects where a file cannot be had, or at the end. @param onCount how many were given */
  async run(onCount: (count: number) => void, signal: AbortSignal): Promise<never> {
    const stopped = AbortSignal.any([signal, this.#ended.signal]);
    for (let count = 0; ; await sleep(POLL_MS, undefined, { signal: stopped })) {
      const wanted = (await readdir(this.#directory)).filter((name) => name.endsWith(WANTED));
      for (const file of wanted) {
        const name = file.slice(0, -WANTED.length);
        await rm(this.#path(file));
        if (await this.#give(name)) onCount(++count);
      }
    }
  }

  end(): void {
    this.#ended.abort();
  }

  async #give(name: string): Promise<boolean> {
    const isThere = await this.#fetch(name);
    this.#fetched.delete(name);
    // Whole under the name that is waited for.
    if (isThere) await rename(this.#path(`${name}.ready`), this.#path(`${name}.given`));
    else await writeFile(this.#path(`${name}.none`), "");
    let next = name;
    for (let ahead = 0; isThere && isSegment(name) && ahead < AHEAD; ahead++) {
      next = nextSegment(next, this.#source.base.segmentBytes);
      // Whether it can be had is seen when it is asked for.
      this.#fetch(next).catch(() => {});
    }
    return isThere;
  }

  #fetch(name: string): Promise<boolean> {
    const known = this.#fetched.get(name);
    if (known) return known;
    const fetched = this.#read(name);
    this.#fetched.set(name, fetched);
    return fetched;
  }

  async #read(name: string): Promise<boolean> {
    const content = isSegment(name) ? await this.#source.segment(name) : undefined;
    if (!content) return false;
    const file = this.#path(`${name}.ready`);
    const writing = createWriteStream(file, { mode: 0o600 });
    await pipeline(Readable.from(content, { objectMode: false }), writing, { signal: this.#ended.signal });
    if (this.#user) await chown(file, this.#user.uid, this.#user.gid);
    return true;
  }

  #path(file: string): string {
    return join(this.#directory, file);
  }
}
