import { expect, it } from "vitest";
import {
  hasGap,
  lsnValue,
  nextBase,
  nextSegment,
  PointInTimeSchema,
  reachesOf,
  reachFor,
  segmentAt,
  segmentEnd,
  spansOf,
  unneeded,
  type BaseManifest,
  type Segments,
} from "../../src/model/point-in-time.ts";

const MIB16 = 16 * 1024 ** 2;
const DAY = 86_400_000;
const at = (time: string) => Date.parse(`2026-01-${time}Z`);

/** A base whose log begins in a segment. */
function base(id: string, segment: number, system = "1"): BaseManifest {
  const lsn = (offset: number) => `0/${(segment * MIB16 + offset).toString(16).toUpperCase()}`;
  const finishedAt = `${id.slice(0, 4)}-${id.slice(4, 6)}-${id.slice(6, 8)}T01:00:00.000Z`;
  const archive = { key: "k", bytes: 1, sha256: "0" };
  const facts = { postgresMajor: 18, timeline: 1, segmentBytes: MIB16, start: lsn(40), end: lsn(400) };
  return { format: 1, id, system, ...facts, finishedAt, databases: [], archive };
}

/** One an hour, the first in the first hour of a day. */
function segments(day: number, from: number, to: number): Segments {
  const name = (number: number) => segmentAt(BigInt(number) * BigInt(MIB16), 1, MIB16);
  const begin = at(`${String(day).padStart(2, "0")}T00:00:00`);
  return new Map(Array.from({ length: to - from + 1 }, (_, i) => [name(from + i), begin + (i + 1) * 3_600_000]));
}

it("names segments as PostgreSQL does, beyond the end of a log file too", () => {
  expect(segmentAt(lsnValue("0/2000028"), 1, MIB16)).toBe("000000010000000000000002");
  expect(segmentAt(lsnValue("1A/FF000000"), 3, MIB16)).toBe("000000030000001A000000FF");
  expect(nextSegment("000000030000001A000000FF", MIB16)).toBe("000000030000001B00000000");
  expect(nextSegment("00000001000000000000003F", 64 * 1024 ** 2)).toBe("000000010000000100000000");
  expect(segmentEnd("000000010000000000000002", MIB16)).toBe(lsnValue("0/3000000"));
});

it("leads from the end of a copy to the last segment that follows, and to now on the server that writes", () => {
  const bases = [base("20260101T005900.000Z", 2)];
  const own = segments(1, 2, 6);
  const live = { system: "1", until: at("01T12:00:00") };
  expect(reachesOf(bases, new Map([["1", own]]))[0]).toMatchObject({ from: at("01T01:00:00"), to: at("01T05:00:00") });
  expect(reachesOf(bases, new Map([["1", own]]), live)[0]).toMatchObject({ to: live.until });
  expect(reachesOf(bases, new Map([["1", own]]), { ...live, system: "2" })[0]).toMatchObject({
    to: at("01T05:00:00"),
  });
  // Its own log is not there yet.
  expect(reachesOf(bases, new Map([["1", segments(1, 3, 6)]]), live)).toEqual([]);
});

it("has no moment of a gap in the log, and those after it only from the next copy on", () => {
  const bases = [base("20260101T005900.000Z", 2), base("20260102T005900.000Z", 30)];
  const own = new Map([...segments(1, 2, 6), ...segments(2, 29, 40)]);
  const reaches = reachesOf(bases, new Map([["1", own]]));
  expect(spansOf(reaches)).toEqual([
    { from: at("01T01:00:00"), to: at("01T05:00:00") },
    { from: at("02T01:00:00"), to: at("02T12:00:00") },
  ]);
  expect(reachFor(reaches, at("01T04:59:00"))?.base.id).toBe("20260101T005900.000Z");
  expect(reachFor(reaches, at("01T18:00:00"))).toBeUndefined();
  expect(reachFor(reaches, at("02T00:30:00"))).toBeUndefined();
});

it("knows that no copy leads to the newest log, until one does", () => {
  const old = base("20260101T005900.000Z", 2);
  const broken = new Map([["1", new Map([...segments(1, 2, 6), ...segments(2, 29, 40)])]]);
  expect(hasGap([old], broken, "1")).toBe(true);
  expect(hasGap([old, base("20260102T005900.000Z", 30)], broken, "1")).toBe(false);
  // Its own log is on the way.
  expect(hasGap([old, base("20260103T005900.000Z", 41)], broken, "1")).toBe(false);
  expect(hasGap([old], new Map([["1", segments(1, 2, 6)]]), "1")).toBe(false);
  expect(hasGap([old], broken, "2")).toBe(false);
  expect(hasGap([], broken, "1")).toBe(false);
});

it("takes the newest copy before a moment, and joins what overlaps", () => {
  const bases = [base("20260101T005900.000Z", 2), base("20260102T005900.000Z", 26)];
  const reaches = reachesOf(bases, new Map([["1", segments(1, 2, 40)]]));
  expect(spansOf(reaches)).toEqual([{ from: at("01T01:00:00"), to: at("02T15:00:00") }]);
  expect(reachFor(reaches, at("02T01:00:00"))?.base.id).toBe("20260102T005900.000Z");
  expect(reachFor(reaches, at("02T00:59:59"))?.base.id).toBe("20260101T005900.000Z");
});

it("keeps the copy that leads to the beginning of the time for which moments are kept, and the log from it on", () => {
  const bases = [1, 2, 3, 4].map((day) => base(`2026010${day}T005900.000Z`, 2 + 24 * (day - 1)));
  const own = segments(1, 2, 90);
  const { bases: gone, segments: old } = unneeded(bases, new Map([["1", own]]), 2, at("04T12:00:00"));
  expect(gone.map(({ id }) => id)).toEqual(["20260101T005900.000Z"]);
  expect(old.map(({ name }) => name)).toEqual([...segments(1, 2, 25).keys()]);
});

it("forgets a server that writes no more only after its last moment is too old", () => {
  const former = [base("20260101T005900.000Z", 2, "former")];
  const all = new Map([["former", segments(1, 2, 6)]]);
  expect(unneeded(former, all, 7, at("08T04:00:00"))).toEqual({ bases: [], segments: [] });
  const later = unneeded(former, all, 7, at("08T06:00:00"));
  expect(later.bases).toHaveLength(1);
  expect(later.segments).toHaveLength(5);
});

it("makes a copy at once where there is none, and then by the schedule", () => {
  const config = PointInTimeSchema.parse({ schedule: "0 1 * * *" });
  expect(nextBase(config, undefined)).toBe(0);
  expect(nextBase(config, at("01T12:00:00"))).toBe(at("02T01:00:00"));
  expect(PointInTimeSchema.safeParse({ schedule: "0 1 * *" }).success).toBe(false);
  expect(config.keepDays * DAY).toBe(7 * DAY);
});
