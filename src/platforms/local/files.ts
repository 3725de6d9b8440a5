import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";

/** A larger log is rotated at a start; the one before is kept as FILE.1. */
const LOG_KEPT_BYTES = 5 * 1024 * 1024;

/** Bounds a log that its writer only ever appends to. */
export function rotateAtStart(file: string, limit = 0): void {
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  if (size > limit) renameSync(file, `${file}.1`);
}

/** For logs that are worth reading across restarts. */
export function rotateIfLarge(file: string): void {
  rotateAtStart(file, LOG_KEPT_BYTES);
}

/**
 * Replaces a file so that a reader, or a crash, meets the old or the new one and nothing between; it is on the disk when this returns.
 * Readable by its owner only. @throws where the disk is full; the old file stays
 */
export function writeAtomically(file: string, text: string): void {
  const draft = `${file}.new`;
  try {
    flushed(draft, "w", (handle) => writeFileSync(handle, text));
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
  renameSync(draft, file);
  // Without this, a power cut may bring the old one back.
  flushed(dirname(file), "r");
}

function flushed(path: string, flags: string, write?: (handle: number) => void): void {
  const handle = openSync(path, flags, 0o600);
  try {
    write?.(handle);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** The secret in a file, made at the first time. */
export function ensureSecret(file: string, bytes = 32): string {
  if (existsSync(file)) {
    const found = readFileSync(file, "utf8").trim();
    if (found !== "") return found;
  }
  const secret = randomBytes(bytes).toString("base64url");
  writeAtomically(file, secret);
  return secret;
}

/** Makes a directory, and those above it that are missing, with this mode whatever the umask is. */
export function makeDirectory(path: string, mode: number): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path), mode);
  mkdirSync(path);
  chmodSync(path, mode);
}

/** The first directory on the way that the user may not pass. */
export function firstClosed(directory: string, user: { uid: number; gid: number }): string | undefined {
  const parents: string[] = [];
  for (let at = realpathSync(directory); ; at = dirname(at)) {
    parents.unshift(at);
    if (at === dirname(at)) break;
  }
  return parents.find((parent) => {
    const { mode, uid, gid } = statSync(parent);
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    return (mode & bit) === 0;
  });
}
