import { expect, it } from "vitest";
import { differences, totalOf } from "../../src/database/contents.ts";

const contents = (rows: Record<string, string>, sequences: Record<string, string> = {}) => ({
  rows: new Map(Object.entries(rows)),
  sequences: new Map(Object.entries(sequences)),
});

it("names each table and sequence that is missing, new or not the same", () => {
  const before = contents({ users: "3", events: "10", gone: "0" }, { s: "10 true", t: "1 false" });
  const after = contents({ users: "3", events: "9", extra: "1" }, { s: "10 true", t: "1 true" });
  expect(differences(before, before)).toEqual([]);
  expect(differences(before, after)).toEqual([
    "events 9 rows instead of 10",
    "gone is missing",
    "extra is new",
    "t stands at 1 true instead of 1 false",
  ]);
  expect(totalOf(before)).toEqual({ tables: 3, rows: 13 });
});
