import { appendFileSync, createReadStream, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { AuditChain, entryOf, hashOf, verifyChain } from "../../api/audit-chain.ts";
import type { AuditEntry, AuditLog, ChainVerification } from "../../api/audit.ts";
import { linesOf } from "../../logging/lines.ts";
import { messageOf } from "../../model/errors.ts";

/** Some 40,000 entries. */
const FILE_BYTES = 10 * 1024 * 1024;
/** However long they are to be kept: 10 GiB. */
const FILES_KEPT = 1000;
const DAY_MS = 86_400_000;

export interface AuditFileOptions {
  /** An older file is removed whose newest entry is older than this; read each time. */
  keepDays: () => number;
  /** Told that an entry cannot be written; it goes there instead. */
  onProblem: (message: string) => void;
  bytes?: number;
  now?: () => number;
}

/** The audit log of one machine: JSON lines in a file that is only appended to, and those before it (`FILE.1` is the newest of them). */
export class AuditFile implements AuditLog {
  readonly #file: string;
  readonly #options: AuditFileOptions;
  readonly #bytes: number;
  readonly #now: () => number;
  #chain: AuditChain | undefined;
  /** A crash, or a full disk, left half a line at the end. */
  #isTorn = false;

  constructor(file: string, options: AuditFileOptions) {
    this.#file = file;
    this.#options = options;
    this.#bytes = options.bytes ?? FILE_BYTES;
    this.#now = options.now ?? Date.now;
  }

  append(entry: AuditEntry): boolean {
    try {
      const chain = (this.#chain ??= this.#goOn());
      if ((statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0) >= this.#bytes) this.#rotate();
      const { line, written } = chain.link(entry);
      const torn = this.#isTorn;
      this.#isTorn = true;
      appendFileSync(this.#file, `${torn ? "\n" : ""}${line}\n`, { mode: 0o600, flush: true });
      this.#isTorn = false;
      written();
      return true;
    } catch (error) {
      const line = JSON.stringify(entry);
      this.#options.onProblem(`cannot write to the audit log ${this.#file}: ${messageOf(error)}; the entry: ${line}`);
      return false;
    }
  }

  async *read({ tail }: { tail?: number }): AsyncGenerator<AuditEntry> {
    const entries: AuditEntry[] = [];
    for await (const line of this.#lines()) {
      const entry = entryOf(line);
      if (!entry) continue;
      if (tail === undefined) yield entry;
      else entries.push(entry);
      if (tail !== undefined && entries.length > 2 * tail + 1000) entries.splice(0, entries.length - tail);
    }
    if (tail !== undefined && tail > 0) yield* entries.slice(-tail);
  }

  verify(): Promise<ChainVerification> {
    return verifyChain(this.#lines());
  }

  async *#lines(): AsyncGenerator<string> {
    for (const file of this.#filesOldestFirst()) yield* linesOf(createReadStream(file));
  }

  /** The chain that a controller before this one began. */
  #goOn(): AuditChain {
    const newest = this.#filesOldestFirst().at(-1);
    if (newest === undefined) return new AuditChain();
    const text = readFileSync(newest, "utf8");
    this.#isTorn = newest === this.#file && text !== "" && !text.endsWith("\n");
    const last = text.split("\n").findLast((line) => entryOf(line) !== undefined);
    return new AuditChain(last === undefined ? "" : hashOf(last));
  }

  #filesOldestFirst(): string[] {
    return [
      ...this.#older()
        .map(({ file }) => file)
        .toReversed(),
      ...(this.#exists(this.#file) ? [this.#file] : []),
    ];
  }

  /** Those before the present one, the newest first. */
  #older(): { file: string; number: number }[] {
    const [directory, name] = [dirname(this.#file), basename(this.#file)];
    const names = this.#exists(directory) ? readdirSync(directory) : [];
    return names
      .filter((one) => one.startsWith(`${name}.`) && /^[1-9]\d*$/.test(one.slice(name.length + 1)))
      .map((one) => ({ file: join(directory, one), number: Number(one.slice(name.length + 1)) }))
      .toSorted((a, b) => a.number - b.number);
  }

  #exists(path: string): boolean {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  }

  #rotate(): void {
    const oldest = this.#now() - this.#options.keepDays() * DAY_MS;
    for (const { file, number } of this.#older().toReversed()) {
      // It was last written to when its newest entry was.
      if (number >= FILES_KEPT || statSync(file).mtimeMs < oldest) rmSync(file);
      else renameSync(file, `${this.#file}.${number + 1}`);
    }
    renameSync(this.#file, `${this.#file}.1`);
  }
}
