import { z } from "zod";
import { nextTime, ScheduleSchema } from "./schedule.ts";

/**
 * A tenant at any moment: copies of the whole database server, made on a schedule (*bases*), and all that it has written since, in *segments* of
 * its log. What is here decides by what is in the target, and has neither clock nor I/O.
 */

export const PointInTimeSchema = z.strictObject({
  /** How far back any moment can be had. */
  keepDays: z.number().min(1).max(366).default(7),
  /** When a base is made, in UTC: the log since the last one is what a restore has to read. */
  schedule: ScheduleSchema.default("0 1 * * *"),
  /** What was written is in the target after about this time. */
  everySeconds: z.int().min(10).max(3600).default(120),
  /** Log that waits on the databases' disk while the target is away. Beyond it the oldest is given up, rather than fill the disk. */
  maxWaitingMiB: z.int().min(256).max(1_048_576).default(4096),
});
export type PointInTimeConfig = z.infer<typeof PointInTimeSchema>;

const Lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/);

export const BaseManifestSchema = z.object({
  format: z.literal(1),
  /** Sorts by time. */
  id: z.string().regex(/^\d{8}T\d{6}\.\d{3}Z$/),
  /** PostgreSQL's own name of the cluster of databases. */
  system: z.string().regex(/^\d+$/),
  postgresMajor: z.int(),
  timeline: z.int().min(1),
  segmentBytes: z.int().min(1),
  /** Recovery reads the log from here, and is consistent from there. */
  start: Lsn,
  end: Lsn,
  /** Moments from here on can be had. */
  finishedAt: z.iso.datetime(),
  databases: z.array(z.object({ oid: z.int(), name: z.string(), bytes: z.int() })),
  archive: z.object({ key: z.string(), bytes: z.int().min(0), sha256: z.string() }),
});
export type BaseManifest = z.infer<typeof BaseManifestSchema>;

/** Segments in the target, by name: when each came there, in milliseconds. */
export type Segments = ReadonlyMap<string, number>;

/** From when to when a base and what follows it lead. */
export interface Reach {
  base: BaseManifest;
  /** Milliseconds. */
  from: number;
  to: number;
  /** The last segment that follows without a gap. */
  last: string;
}

const SEGMENT = /^[0-9A-F]{24}$/;

export function isSegment(name: string): boolean {
  return SEGMENT.test(name);
}

export function lsnValue(lsn: string): bigint {
  const [high = "0", low = "0"] = lsn.split("/");
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`);
}

/** The file that a position of the log is in. */
export function segmentAt(position: bigint, timeline: number, segmentBytes: number): string {
  return segmentName(timeline, position / BigInt(segmentBytes), segmentBytes);
}

export function nextSegment(name: string, segmentBytes: number): string {
  return segmentName(Number.parseInt(name.slice(0, 8), 16), numberOf(name, segmentBytes) + 1n, segmentBytes);
}

/** Where it ends: all before this position is in it, or in those before it. */
export function segmentEnd(name: string, segmentBytes: number): bigint {
  return (numberOf(name, segmentBytes) + 1n) * BigInt(segmentBytes);
}

function perFile(segmentBytes: number): bigint {
  return (1n << 32n) / BigInt(segmentBytes);
}

function numberOf(name: string, segmentBytes: number): bigint {
  return BigInt(`0x${name.slice(8, 16)}`) * perFile(segmentBytes) + BigInt(`0x${name.slice(16, 24)}`);
}

function segmentName(timeline: number, number: bigint, segmentBytes: number): string {
  const per = perFile(segmentBytes);
  return [BigInt(timeline), number / per, number % per]
    .map((part) => part.toString(16).toUpperCase().padStart(8, "0"))
    .join("");
}

/** The first segment that a recovery from a base reads. */
export function firstSegment({ start, timeline, segmentBytes }: BaseManifest): string {
  return segmentAt(lsnValue(start), timeline, segmentBytes);
}

/** The last segment that follows a base without a gap, if any does, and the first that is not there. */
function chainOf(base: BaseManifest, own: Segments): { last: string | undefined; missing: string } {
  let last: string | undefined;
  let missing = firstSegment(base);
  for (; own.has(missing); missing = nextSegment(missing, base.segmentBytes)) last = missing;
  return { last, missing };
}

/**
 * Where each base leads, oldest first; one whose own log is not there, or not yet, leads nowhere.
 * @param live the server that writes now, and until when everything it wrote is in the target: milliseconds
 */
export function reachesOf(
  bases: readonly BaseManifest[],
  segments: ReadonlyMap<string, Segments>,
  live?: { system: string; until: number },
): Reach[] {
  return bases
    .toSorted((a, b) => (a.id < b.id ? -1 : 1))
    .flatMap((base) => {
      const own = segments.get(base.system) ?? new Map<string, number>();
      const needed = segmentAt(lsnValue(base.end) - 1n, base.timeline, base.segmentBytes);
      const { last } = chainOf(base, own);
      if (last === undefined || last < needed) return [];
      const isNewest = [...own.keys()].every((name) => name <= last);
      const until = isNewest && live?.system === base.system ? live.until : 0;
      const from = Date.parse(base.finishedAt);
      return [{ base, from, to: Math.max(from, own.get(last) ?? 0, until), last }];
    });
}

/** Whether no base leads to the newest segment of a server, as the log between them was lost. One that waits for its own log may yet. */
export function hasGap(
  bases: readonly BaseManifest[],
  segments: ReadonlyMap<string, Segments>,
  system: string,
): boolean {
  const own = segments.get(system) ?? new Map<string, number>();
  const isCutOff = (base: BaseManifest): boolean => {
    const { missing } = chainOf(base, own);
    return [...own.keys()].some((name) => name > missing);
  };
  const ofServer = bases.filter((base) => base.system === system);
  return ofServer.length > 0 && ofServer.every(isCutOff);
}

/** The newest base that leads to a moment. @param at milliseconds */
export function reachFor(reaches: readonly Reach[], at: number): Reach | undefined {
  return reaches.findLast(({ from, to }) => from <= at && at <= to);
}

/** Times that can be had, oldest first, with gaps between them where the log has some. */
export function spansOf(reaches: readonly Reach[]): { from: number; to: number }[] {
  const spans: { from: number; to: number }[] = [];
  for (const { from, to } of reaches.toSorted((a, b) => a.from - b.from)) {
    const last = spans.at(-1);
    if (last && from <= last.to) last.to = Math.max(last.to, to);
    else spans.push({ from, to });
  }
  return spans;
}

/**
 * What no moment within `keepDays` needs any more. The newest base from before that time stays: it leads to its beginning.
 * @param now milliseconds
 */
export function unneeded(
  bases: readonly BaseManifest[],
  segments: ReadonlyMap<string, Segments>,
  keepDays: number,
  now: number,
): { bases: BaseManifest[]; segments: { system: string; name: string }[] } {
  const since = now - keepDays * 86_400_000;
  const gone: BaseManifest[] = [];
  const old: { system: string; name: string }[] = [];
  for (const system of new Set([...segments.keys(), ...bases.map((base) => base.system)])) {
    const own = bases.filter((base) => base.system === system).toSorted((a, b) => (a.id < b.id ? -1 : 1));
    const arrivals = [...(segments.get(system) ?? [])];
    // A server that writes no more is kept as long as its last moment.
    const isPast = arrivals.every(([, at]) => at < since) && own.every((base) => Date.parse(base.finishedAt) < since);
    const first = isPast
      ? own.length
      : Math.max(
          0,
          own.findLastIndex((base) => Date.parse(base.finishedAt) <= since),
        );
    gone.push(...own.slice(0, first));
    const kept = own.slice(first);
    const needed = kept.map(firstSegment).toSorted()[0];
    for (const [name, at] of arrivals)
      if (needed === undefined ? at < since : name < needed) old.push({ system, name });
  }
  return { bases: gone, segments: old };
}

/** When a base is due, given when the last one was made; milliseconds. */
export function nextBase({ schedule }: PointInTimeConfig, last: number | undefined): number {
  return last === undefined ? 0 : (nextTime(schedule, last) ?? Number.POSITIVE_INFINITY);
}
