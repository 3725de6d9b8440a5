import { gunzipSync, gzipSync } from "node:zlib";
import { entryOf } from "../../../api/audit-chain.ts";
import type { ObjectData } from "../secret-shelf.ts";

/** The newest lines, and where those before them are. Entries are numbered from the first there ever was. */
export interface Head {
  /** The process that writes; whoever leads after it has another. */
  leader: string;
  /** Number of the first of `lines`, or of the next one. */
  from: number;
  /** Number of the oldest block that is kept. */
  first: number;
  /** Number of the next block to be made. */
  next: number;
  /** The hash of the newest line. */
  last: string;
  lines: readonly string[];
}

/** Lines that were in the head before; it is only added to. */
export interface Block {
  from: number;
  count: number;
  /** When its newest entry was made. */
  newest: string;
  /** Compressed, one piece after the other. */
  bytes: Buffer;
}

const STATE = "state.json";
const ENTRIES = "entries.jsonl.gz";
/** Kubernetes takes 1 MiB in an object; lines are at most some thirty times as long as what they are compressed to. */
const MOST_BYTES = 64 * 1024 * 1024;

export function packedHead({ lines, ...state }: Head): ObjectData {
  return { [STATE]: Buffer.from(JSON.stringify(state)), [ENTRIES]: compressed(lines) };
}

/** @throws where it is not what `packedHead` makes */
export function headIn(data: ObjectData): Head {
  const { leader, from, first, next, last } = stateIn<Omit<Head, "lines">>(data);
  const isWhole = [from, first, next].every((number) => Number.isSafeInteger(number) && number >= 0) && first <= next;
  if (!isWhole || typeof last !== "string" || typeof leader !== "string") throw new Error(`its ${STATE} is not whole`);
  return { leader, from, first, next, last, lines: linesIn(data[ENTRIES]) };
}

export function packedBlock({ bytes, ...state }: Block): ObjectData {
  return { [STATE]: Buffer.from(JSON.stringify(state)), [ENTRIES]: bytes };
}

/** @throws where it is not what `packedBlock` makes */
export function blockIn(data: ObjectData): Block {
  const { from, count, newest } = stateIn<Omit<Block, "bytes">>(data);
  if (!Number.isSafeInteger(from) || !Number.isSafeInteger(count)) throw new Error(`its ${STATE} is not whole`);
  return { from, count, newest, bytes: data[ENTRIES] ?? Buffer.alloc(0) };
}

/** @param block to which they are added; absent: they begin one */
export function blockWith(lines: readonly string[], from: number, block?: Block): Block {
  const newest = entryOf(lines.at(-1) ?? "")?.time ?? block?.newest ?? "";
  const piece = compressed(lines);
  if (!block) return { from, count: lines.length, newest, bytes: piece };
  // Pieces of gzip one after the other are read as one.
  return { from: block.from, count: block.count + lines.length, newest, bytes: Buffer.concat([block.bytes, piece]) };
}

/** @throws where they are not compressed lines */
export function linesIn(bytes: Buffer | undefined): string[] {
  if (!bytes || bytes.length === 0) return [];
  const text = gunzipSync(bytes, { maxOutputLength: MOST_BYTES }).toString("utf8");
  return text.split("\n").filter((line) => line !== "");
}

function compressed(lines: readonly string[]): Buffer {
  return lines.length === 0 ? Buffer.alloc(0) : gzipSync(`${lines.join("\n")}\n`);
}

function stateIn<T>(data: ObjectData): Partial<T> & T {
  return JSON.parse(data[STATE]?.toString("utf8") ?? "null") as T;
}
