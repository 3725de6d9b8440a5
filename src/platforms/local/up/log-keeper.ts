import { closeSync, fstatSync, ftruncateSync, openSync, readdirSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const MOST_BYTES = 10 * 1024 * 1024;
/** What is kept of a log that is begun again: its end. */
const KEPT_BYTES = 1024 * 1024;
const EVERY_MS = 10_000;

/**
 * Bounds logs whose writers never look at their size: what a process prints, and PostgreSQL's. They are cut in place, since a writer keeps
 * its file open; all of them append.
 */
export class LogKeeper {
  readonly #files: () => string[];
  readonly #timer: NodeJS.Timeout;

  constructor(files: () => string[], everyMs = EVERY_MS) {
    this.#files = files;
    this.#timer = setInterval(() => this.#look(), everyMs).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const file of this.#files()) {
      try {
        cutLog(file);
      } catch {
        // Not there yet, or not ours to cut; the next look tries again.
      }
    }
  }
}

/** Begins a log again that is too large, and keeps the end of it as FILE.1. */
export function cutLog(file: string, most = MOST_BYTES, kept = KEPT_BYTES): void {
  const descriptor = openSync(file, "r+");
  try {
    const { size } = fstatSync(descriptor);
    if (size <= most) return;
    const end = Buffer.alloc(Math.min(kept, size));
    const length = readSync(descriptor, end, 0, end.length, size - end.length);
    const firstLine = end.indexOf(0x0a) + 1;
    try {
      writeFileSync(`${file}.1`, end.subarray(firstLine, length), { mode: 0o600 });
    } finally {
      // Also where the disk is full, which this may be the cause of.
      ftruncateSync(descriptor, 0);
    }
  } finally {
    closeSync(descriptor);
  }
}

/** Logs in a data directory that nobody else bounds. */
export function logsToKeep(dataDir: string, shardsDir: string): string[] {
  const own = ["controller.output.log", "gateway.output.log", "postgres.log"].map((name) => join(dataDir, name));
  let shards: string[] = [];
  try {
    shards = readdirSync(shardsDir).map((shard) => join(shardsDir, shard, "output.log"));
  } catch {
    // No shard has been started yet.
  }
  return [...own, ...shards];
}
