import { createHash } from "node:crypto";
import type { AuditEntry, ChainVerification } from "./audit.ts";

/** The hash of the line before it; empty for the first there ever was. */
export type ChainedEntry = AuditEntry & { previous: string };

const FIRST_BREAKS = 20;

/** Each line has the hash of the one before it, so none can be changed, removed or put in unnoticed. */
export class AuditChain {
  #head: string;

  constructor(head = "") {
    this.#head = head;
  }

  /** @returns the entry as the next line, and what to call once it is written: an entry that is lost is no link */
  link(entry: AuditEntry): { chained: ChainedEntry; line: string; written: () => void } {
    const chained = { ...entry, previous: this.#head };
    const line = JSON.stringify(chained);
    return { chained, line, written: () => (this.#head = hashOf(line)) };
  }
}

export function hashOf(line: string): string {
  return createHash("sha256").update(line).digest("hex");
}

/** @param lines of a log, oldest first; halves of lines that a crash left are no entries */
export async function verifyChain(lines: AsyncIterable<string> | Iterable<string>): Promise<ChainVerification> {
  const found: ChainVerification = { entries: 0, head: "", unchained: 0, breaks: [] };
  let expected: string | undefined;
  for await (const line of lines) {
    const entry = entryOf(line);
    if (!entry) continue;
    found.entries += 1;
    if (entry.previous === undefined) {
      found.unchained += 1;
      if (expected !== undefined) addBreak(found, entry, "it has no hash of the entry before it");
    } else if (expected !== undefined && entry.previous !== expected)
      addBreak(found, entry, "the entry before it was changed or removed, or another one put in");
    // The oldest file may have had others before it, which were kept long enough.
    found.head = hashOf(line);
    expected = entry.previous === undefined && expected === undefined ? undefined : found.head;
  }
  return found;
}

function addBreak({ breaks, entries }: ChainVerification, { time }: AuditEntry, problem: string): void {
  if (breaks.length < FIRST_BREAKS) breaks.push({ entry: entries, time, problem });
}

/** Undefined for half a line. */
export function entryOf(line: string): (Partial<Pick<ChainedEntry, "previous">> & AuditEntry) | undefined {
  try {
    const value = JSON.parse(line) as Partial<ChainedEntry> | null;
    return typeof value === "object" && typeof value?.time === "string" ? (value as ChainedEntry) : undefined;
  } catch {
    return undefined;
  }
}
