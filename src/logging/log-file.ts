import { closeSync, fstatSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { describeFileProblem } from "./file-problem.ts";

/** Beyond it, the log is begun again; the one before is kept as FILE.1. */
const MAX_BYTES = 50 * 1024 * 1024;
/** How often a log that cannot be opened is tried again: at each line, it would be a burden. */
const REOPEN_AFTER_MS = 1_000;
const STANDARD_OUTPUT = 1;

export interface LogFileOptions {
  /** Undefined: standard output. */
  path?: string;
  maxBytes?: number;
  /** A log that cannot be written is worth a sentence elsewhere. */
  onProblem?: (sentence: string) => void;
}

/**
 * Where lines of a log go. What cannot be written is dropped, and counted in the log once it can be again: nobody stops serving because a disk
 * is full. Written at once, so that the last lines of a process that dies are there.
 */
export class LogFile {
  readonly #path: string | undefined;
  readonly #maxBytes: number;
  readonly #onProblem: (sentence: string) => void;
  #descriptor: number | undefined;
  #bytes = 0;
  #dropped = 0;
  /** The last line broke off in its middle. */
  #torn = false;
  #openedAt = Number.NEGATIVE_INFINITY;

  constructor({ path, maxBytes = MAX_BYTES, onProblem = complain }: LogFileOptions) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#onProblem = onProblem;
    if (path === undefined) this.#descriptor = STANDARD_OUTPUT;
    else this.#open();
  }

  /** @param line with its line break */
  write(line: string): void {
    if (this.#path !== undefined && this.#bytes >= this.#maxBytes) this.#rotate(this.#path);
    if (this.#descriptor === undefined && performance.now() - this.#openedAt > REOPEN_AFTER_MS) this.#open();
    if (this.#descriptor === undefined) {
      this.#dropped += 1;
      return;
    }
    const before = this.#torn ? "\n" : "";
    const note = this.#dropped > 0 ? noteOf(this.#dropped) : "";
    try {
      this.#append(this.#descriptor, Buffer.from(before + note + line));
      this.#dropped = 0;
    } catch (error) {
      this.#drop(error);
    }
  }

  /** Goes on in a new file, if somebody has moved the present one away. */
  reopen(): void {
    if (this.#path === undefined) return;
    this.#close();
    this.#open();
  }

  #append(descriptor: number, bytes: Buffer): void {
    let from = 0;
    try {
      while (from < bytes.length) from += writeSync(descriptor, bytes, from);
    } finally {
      this.#bytes += from;
      if (from > 0) this.#torn = bytes[from - 1] !== 0x0a;
    }
  }

  #drop(error: unknown): void {
    this.#dropped += 1;
    if (this.#dropped > 1) return;
    const what = this.#path === undefined ? "standard output" : this.#path;
    this.#onProblem(
      `the log ${what} cannot be written: ${describeFileProblem(error)}; its lines are dropped until it can be`,
    );
  }

  #open(): void {
    this.#openedAt = performance.now();
    const path = this.#path!;
    try {
      mkdirSync(dirname(path), { recursive: true });
      this.#descriptor = openSync(path, "a", 0o600);
      this.#bytes = fstatSync(this.#descriptor).size;
    } catch (error) {
      this.#drop(error);
    }
  }

  #close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    this.#torn = false;
  }

  #rotate(path: string): void {
    this.#bytes = 0;
    try {
      renameSync(path, `${path}.1`);
    } catch {
      // It goes on growing until it can be moved: that it cannot is no reason to lose lines.
      return;
    }
    this.reopen();
  }
}

function noteOf(count: number): string {
  return `${JSON.stringify({ level: 40, time: Date.now(), dropped: count, msg: "lines of this log could not be written and were dropped" })}\n`;
}

/** To standard error, which may be a file on the same disk. */
export function complain(sentence: string): void {
  try {
    writeSync(2, `${sentence}\n`);
  } catch {
    // Nobody is left to tell.
  }
}
