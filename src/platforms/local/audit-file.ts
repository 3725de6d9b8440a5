import { appendFileSync, createReadStream, existsSync, renameSync, statSync } from "node:fs";
import { createInterface } from "node:readline";
import type { AuditEntry, AuditLog } from "../../api/audit.ts";
import { messageOf } from "../../model/errors.ts";

/** Some 40,000 entries; with those before it, years of a busy cluster. */
const FILE_BYTES = 10 * 1024 * 1024;
const FILES_KEPT = 10;

/** The audit log of one machine: JSON lines in a file that is only appended to, and those before it (`FILE.1` is the newest of them). */
export class AuditFile implements AuditLog {
  readonly #file: string;
  readonly #onProblem: (message: string) => void;
  readonly #bytes: number;

  /** @param onProblem told that an entry cannot be written; it goes there instead */
  constructor(file: string, onProblem: (message: string) => void, bytes = FILE_BYTES) {
    this.#file = file;
    this.#onProblem = onProblem;
    this.#bytes = bytes;
  }

  append(entry: AuditEntry): void {
    const line = JSON.stringify(entry);
    try {
      if ((statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0) >= this.#bytes) this.#rotate();
      appendFileSync(this.#file, `${line}\n`, { mode: 0o600, flush: true });
    } catch (error) {
      this.#onProblem(`cannot write to the audit log ${this.#file}: ${messageOf(error)}; the entry: ${line}`);
    }
  }

  async *read({ tail }: { tail?: number }): AsyncGenerator<AuditEntry> {
    const entries: AuditEntry[] = [];
    for (const file of this.#filesOldestFirst()) {
      for await (const line of createInterface({ input: createReadStream(file, "utf8"), crlfDelay: Infinity })) {
        const entry = parse(line);
        if (!entry) continue;
        if (tail === undefined) yield entry;
        else entries.push(entry);
        if (tail !== undefined && entries.length > 2 * tail + 1000) entries.splice(0, entries.length - tail);
      }
    }
    if (tail !== undefined && tail > 0) yield* entries.slice(-tail);
  }

  #filesOldestFirst(): string[] {
    const before = Array.from({ length: FILES_KEPT }, (_, index) => `${this.#file}.${FILES_KEPT - index}`);
    return [...before, this.#file].filter((file) => existsSync(file));
  }

  #rotate(): void {
    for (let index = FILES_KEPT - 1; index >= 1; index--)
      if (existsSync(`${this.#file}.${index}`)) renameSync(`${this.#file}.${index}`, `${this.#file}.${index + 1}`);
    renameSync(this.#file, `${this.#file}.1`);
  }
}

/** A crash in the middle of a write leaves half a line. */
function parse(line: string): AuditEntry | undefined {
  try {
    return JSON.parse(line) as AuditEntry;
  } catch {
    return undefined;
  }
}
