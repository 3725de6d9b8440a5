import { randomUUID } from "node:crypto";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { AuditChain, entryOf, hashOf, verifyChain } from "../../../api/audit-chain.ts";
import type { AuditEntry, AuditLog, ChainVerification } from "../../../api/audit.ts";
import { exponential, type Backoff } from "../../../model/backoff.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import { AuditBlocks, type AuditBlocksOptions } from "./audit-blocks.ts";
import { headIn, packedHead, type Head } from "./audit-objects.ts";
import type { Shelf, ShelfObject } from "../secret-shelf.ts";

/** On each of its objects: the cluster. */
export const AUDIT_LABEL = "synapse-shards.io/audit-of";
/** Of lines, some 200 entries: each write takes all of them, a tenth as long by compression, and etcd keeps what was before for minutes. */
const HEAD_BYTES = 64 * 1024;
/** Of one entry, which has to fit into the head; changes of an honest configuration are a hundredth of that. */
const MOST_CHARACTERS = 256 * 1024;
/** While the API server is away. They are lines of the controller's log anyway. */
const MOST_WAITING = 10_000;
/** An answer does not wait for longer. */
const WAIT_MS = 5_000;
const RETRY = exponential(500, 30_000);
/** Somebody else may write at the same time, as when an API server that was away carries out what it was asked before. */
const TAKE_OVER_TRIES = 5;
/** Lines are read in pieces of so many, between which requests have their turn. */
const LINES_AT_ONCE = 500;

export interface KubernetesAuditOptions extends Omit<AuditBlocksOptions, "shelf"> {
  shelf: Shelf;
  /** Told of each entry at once, before it is written. */
  onEntry?: (entry: AuditEntry) => void;
  headBytes?: number;
  waitMs?: number;
  retryDelay?: Backoff;
}

interface Waiting {
  entry: AuditEntry;
  settle: (isKept: boolean) => void;
}

interface Attempt {
  head: Head;
  /** How many of those that wait are in it. */
  entries: number;
}

/**
 * The audit log on Kubernetes: one chain over all leaders, in a few Secrets. The newest entries are in a small one, the head, which is written again
 * with each entry, as an object of half a MiB would fill etcd; its lines go on to large ones, the blocks, which are compressed, bounded in number, and
 * removed when they are older than is wanted.
 *
 * Who leads begins by writing its name into the head. Each write names the version that it is based on, so that from then on a leader before it, which
 * does not know yet that it lost the lease, can add nothing.
 */
export class KubernetesAudit implements AuditLog {
  readonly #options: KubernetesAuditOptions;
  readonly #blocks: AuditBlocks;
  readonly #name: string;
  readonly #waiting: Waiting[] = [];
  #head: Head;
  #version: string;
  /**
   * A write whose outcome is not known. It is tried again as it is, without the entries that came meanwhile: if the API server carried it out and the
   * answer was lost, it is known by that.
   */
  #attempt: Attempt | undefined;
  #isWriting = false;
  /** Writes in a row that failed. */
  #failures = 0;
  /** Another one leads, or this one stops. */
  #isOver = false;

  private constructor(options: KubernetesAuditOptions, blocks: AuditBlocks, { head, version }: Taken) {
    this.#options = options;
    this.#blocks = blocks;
    this.#name = nameOf(options);
    this.#head = head;
    this.#version = version;
  }

  /** Takes the log over from the leader before, which can add nothing from then on. @throws UserError */
  static async open(options: KubernetesAuditOptions): Promise<KubernetesAudit> {
    const blocks = new AuditBlocks(options);
    for (let tries = 1; ; tries++)
      try {
        return new KubernetesAudit(options, blocks, await takeOver(options, blocks));
      } catch (error) {
        if (!isConflict(error) || tries === TAKE_OVER_TRIES) throw error;
      }
  }

  /** @returns true once it is kept; false where it is not yet, or never will be, which is said */
  append(given: AuditEntry): Promise<boolean> {
    const { onEntry, onProblem, waitMs = WAIT_MS } = this.#options;
    const entry = fitting(given);
    onEntry?.(entry);
    return new Promise((resolve) => {
      if (this.#isOver || this.#waiting.length >= MOST_WAITING) {
        onProblem(`the audit log does not have this entry: ${JSON.stringify(entry)}`);
        return resolve(false);
      }
      // While nothing can be written, nobody is to wait for it.
      const timer = setTimeout(() => resolve(false), this.#failures > 0 ? 0 : waitMs).unref();
      const settle = (isKept: boolean) => {
        clearTimeout(timer);
        resolve(isKept);
      };
      this.#waiting.push({ entry, settle });
      if (!this.#isWriting) void this.#write();
      return undefined;
    });
  }

  async *read({ tail }: { tail?: number }): AsyncGenerator<AuditEntry> {
    if (tail !== undefined) return yield* await this.#newest(tail);
    for await (const line of this.#lines(this.#options.onProblem)) {
      const entry = entryOf(line);
      if (entry) yield entry;
    }
  }

  async verify(): Promise<ChainVerification> {
    const problems: string[] = [];
    const found = await verifyChain(this.#lines((problem) => void problems.push(problem)));
    const breaks = problems.map((problem) => ({ entry: 0, time: "", problem }));
    return { ...found, breaks: [...breaks, ...found.breaks] };
  }

  /** Writes what waits; what cannot be written is said. */
  async close(): Promise<void> {
    const deadline = Date.now() + (this.#options.waitMs ?? WAIT_MS);
    while (this.#waiting.length > 0 && !this.#isOver && Date.now() < deadline) await sleep(10);
    this.#end("this controller stops");
  }

  async *#lines(onProblem: (problem: string) => void): AsyncGenerator<string> {
    const head = this.#head;
    for await (const lines of this.#blocks.lines(head, onProblem))
      for (const [index, line] of lines.entries()) {
        if (index % LINES_AT_ONCE === 0) await setImmediate();
        yield line;
      }
    yield* head.lines;
  }

  async #newest(count: number): Promise<AuditEntry[]> {
    const head = this.#head;
    let found = entriesOf(head.lines).slice(Math.max(0, head.lines.length - count));
    if (found.length >= count) return found;
    for await (const lines of this.#blocks.backwards(head, this.#options.onProblem)) {
      const missing = count - found.length;
      found = [...entriesOf(lines.slice(Math.max(0, lines.length - missing))), ...found];
      if (found.length >= count) break;
    }
    return found;
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    while (this.#waiting.length > 0 && !this.#isOver)
      try {
        await this.#writeSome();
        this.#failures = 0;
      } catch (error) {
        this.#failures += 1;
        if (this.#failures === 1)
          this.#options.onProblem(`cannot write to the audit log, trying again: ${messageOf(error)}`);
        const { retryDelay = RETRY } = this.#options;
        await sleep(retryDelay(this.#failures), undefined, { ref: false });
      }
    this.#isWriting = false;
  }

  async #writeSome(): Promise<void> {
    this.#attempt ??= await this.#next();
    const { head, entries } = this.#attempt;
    const written = await this.#replace(head);
    this.#attempt = undefined;
    if (!written) return;
    this.#head = written;
    for (const { settle } of this.#waiting.splice(0, entries)) settle(true);
  }

  /** As many entries as came meanwhile, with one write. */
  async #next(): Promise<Attempt> {
    const { headBytes = HEAD_BYTES } = this.#options;
    const chain = new AuditChain(this.#head.last);
    const lines: string[] = [];
    let bytes = 0;
    let last = this.#head.last;
    for (const { entry } of this.#waiting) {
      const { line, written } = chain.link(entry);
      if (lines.length > 0 && bytes + line.length > headBytes) break;
      lines.push(line);
      bytes += line.length;
      last = hashOf(line);
      written();
    }
    const present = this.#head.lines.reduce((sum, line) => sum + line.length, 0);
    const room = present > 0 && present + bytes > headBytes ? await this.#blocks.take(this.#head) : this.#head;
    return { head: { ...room, lines: [...room.lines, ...lines], last }, entries: lines.length };
  }

  /** @returns the head as it is there; undefined: it is not written @throws where that is not known, or is gone the next time */
  async #replace(head: Head): Promise<Head | undefined> {
    const { shelf, onProblem } = this.#options;
    try {
      this.#version =
        (await shelf.replace(this.#name, packedHead(head), this.#version)) ??
        (await shelf.create(this.#name, packedHead(head)));
      return head;
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
    const found = await shelf.read(this.#name);
    if (!found) throw new UserError("Unavailable", `the Secret ${this.#name} was removed`);
    const there = readable(found);
    if (there && there.leader !== head.leader) {
      this.#end("another controller leads");
      return undefined;
    }
    this.#version = found.version;
    // It was written, and the answer was lost.
    const isWritten = there?.last === head.last;
    const expected = isWritten ? head : this.#head;
    if (!there || !areEqual(there.lines, expected.lines))
      onProblem(`somebody changed the Secret ${this.#name}; audit verify shows what is not as it was written`);
    // What was made of the lines stays as it is, for the chain to tell.
    const present = { ...expected, lines: there?.lines ?? expected.lines };
    if (isWritten) return present;
    this.#head = present;
    return undefined;
  }

  #end(why: string): void {
    this.#isOver = true;
    const lost = this.#waiting.splice(0);
    if (lost.length > 0)
      this.#options.onProblem(
        `the audit log does not have ${lost.length} entries, as ${why}: ${lost.map(({ entry }) => JSON.stringify(entry)).join(" ")}`,
      );
    for (const { settle } of lost) settle(false);
  }
}

interface Taken {
  head: Head;
  version: string;
}

async function takeOver(options: KubernetesAuditOptions, blocks: AuditBlocks): Promise<Taken> {
  const { shelf, onProblem } = options;
  const name = nameOf(options);
  const found = await shelf.read(name);
  const there = found && readable(found);
  if (found && !there)
    onProblem(`the Secret ${name} has no head of the audit log that can be read; what was in it is lost`);
  const before = there ?? (await blocks.without());
  const head = { ...before, leader: randomUUID() };
  const version = found
    ? await shelf.replace(name, packedHead(head), found.version)
    : await shelf.create(name, packedHead(head));
  if (version === undefined) throw new UserError("Conflict", `the Secret ${name} was removed just now`);
  return { head, version };
}

/** The dots keep it apart from what tenants' owners call their Secrets. */
function nameOf({ clusterId }: Pick<KubernetesAuditOptions, "clusterId">): string {
  return `${clusterId}.audit`;
}

function readable({ data }: ShelfObject): Head | undefined {
  try {
    return headIn(data);
  } catch {
    return undefined;
  }
}

function fitting(entry: AuditEntry): AuditEntry {
  if (JSON.stringify(entry).length <= MOST_CHARACTERS) return entry;
  const { changes = [], ...rest } = entry;
  const after = `${changes.length} fields, which are too long to be kept`;
  return { ...rest, changes: [{ field: "(all)", before: null, after }] };
}

function entriesOf(lines: readonly string[]): AuditEntry[] {
  return lines.flatMap((line) => entryOf(line) ?? []);
}

function areEqual(some: readonly string[], others: readonly string[]): boolean {
  return some.length === others.length && some.every((line, n) => line === others[n]);
}

function isConflict(error: unknown): boolean {
  return error instanceof UserError && error.code === "Conflict";
}
