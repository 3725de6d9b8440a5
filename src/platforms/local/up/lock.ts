import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { UserError } from "../../../model/errors.ts";

const POLL_MS = 200;

export interface Lock {
  release(): void;
}

/**
 * Takes a lock that the operating system gives back when the process ends, however it ends: SQLite's lock on a file of
 * its own. A file with a pid in it would outlive a killed process and have to be judged stale by guessing.
 * @returns undefined when another process, or this one, holds it
 */
export function tryLock(file: string): Lock | undefined {
  mkdirSync(dirname(file), { recursive: true });
  const db = new DatabaseSync(file);
  try {
    db.exec("PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;");
  } catch (error) {
    db.close();
    if (isBusy(error)) return undefined;
    throw error;
  }
  writeFileSync(`${file}.pid`, String(process.pid), { mode: 0o600 });
  return {
    release: () => {
      if (db.isOpen) db.close();
    },
  };
}

/** The pid of the process that holds the lock, or held it last. */
export function lockHolder(file: string): number | undefined {
  try {
    return Number(readFileSync(`${file}.pid`, "utf8")) || undefined;
  } catch {
    return undefined;
  }
}

/** Waits for the lock until it is free. `onWait` is called once, with the pid of who has it. */
export async function waitForLock(
  file: string,
  options: { signal?: AbortSignal; onWait?: (holder: number | undefined) => void } = {},
): Promise<Lock> {
  for (let attempt = 0; ; attempt++) {
    options.signal?.throwIfAborted();
    const lock = tryLock(file);
    if (lock) return lock;
    if (attempt === 0) options.onWait?.(lockHolder(file));
    await sleep(POLL_MS, undefined, { signal: options.signal });
  }
}

/** One cluster at a time works on a data directory. @throws UserError Conflict that names the process which does */
export function lockDataDirectory(dataDir: string): Lock {
  const file = `${dataDir}/lock`;
  const lock = tryLock(file);
  if (lock) return lock;
  const holder = lockHolder(file);
  throw new UserError(
    "Conflict",
    `a cluster already runs with the data in ${dataDir}${holder ? ` (process ${holder})` : ""}; stop it first, or give another directory with --data`,
  );
}

function isBusy(error: unknown): boolean {
  // SQLITE_BUSY and SQLITE_LOCKED
  return error instanceof Error && "errcode" in error && (error.errcode === 5 || error.errcode === 6);
}
