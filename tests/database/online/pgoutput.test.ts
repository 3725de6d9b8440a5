import { MessageBound } from "../../../src/database/message-bound.ts";
import { describe, expect, it } from "vitest";
import { parseMessage, type Relation, type Row } from "../../../src/database/online/pgoutput.ts";
import { OtherTable, Statements, type RowCounts } from "../../../src/database/online/statements.ts";

const int16 = (value: number) => Buffer.from([value >> 8, value & 255]);
const int32 = (value: number) => {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value);
  return buffer;
};
const text = (value: string) => Buffer.from(`${value}\0`);
const row = (...values: (string | null | undefined)[]) =>
  Buffer.concat([
    int16(values.length),
    ...values.map((value) => {
      if (value === null) return Buffer.from("n");
      if (value === undefined) return Buffer.from("u");
      return Buffer.concat([Buffer.from("t"), int32(Buffer.byteLength(value)), Buffer.from(value)]);
    }),
  ]);
const message = (kind: string, ...parts: Buffer[]) => Buffer.concat([Buffer.from(kind), ...parts]);

const relation = (identity: "d" | "f", keys: readonly string[]): Relation => ({
  id: 7,
  schema: "public",
  name: "events",
  isFull: identity === "f",
  columns: ["id", "body", "more"].map((name) => ({
    name,
    type: name === "more" ? 114 : 25,
    isKey: keys.includes(name),
  })),
});

describe("messages of pgoutput", () => {
  it("are read with their values as text", () => {
    const described = message(
      "R",
      int32(4_000_000_000),
      text("public"),
      text("events"),
      Buffer.from("d"),
      int16(1),
      Buffer.from([1]),
      text("id"),
      int32(20),
      int32(0xffffffff),
    );
    expect(parseMessage(described)).toEqual({
      kind: "relation",
      relation: {
        id: 4_000_000_000,
        schema: "public",
        name: "events",
        isFull: false,
        columns: [{ name: "id", type: 20, isKey: true }],
      },
    });
    expect(parseMessage(message("I", int32(7), Buffer.from("N"), row("1", null, "ä")))).toEqual({
      kind: "insert",
      relation: 7,
      row: ["1", null, "ä"],
    });
    expect(parseMessage(message("U", int32(7), Buffer.from("N"), row("1", undefined, "x")))).toEqual({
      kind: "update",
      relation: 7,
      row: ["1", undefined, "x"],
    });
    expect(parseMessage(message("U", int32(7), Buffer.from("K"), row("1"), Buffer.from("N"), row("2")))).toEqual({
      kind: "update",
      relation: 7,
      old: ["1"],
      row: ["2"],
    });
    expect(parseMessage(message("D", int32(7), Buffer.from("O"), row("1")))).toEqual({
      kind: "delete",
      relation: 7,
      old: ["1"],
    });
    expect(parseMessage(message("T", int32(2), Buffer.from([3]), int32(7), int32(8)))).toEqual({
      kind: "truncate",
      relations: [7, 8],
      cascade: true,
      restart: true,
    });
    const commit = message("C", Buffer.alloc(9), Buffer.from("0000000116b374d8", "hex"), Buffer.alloc(8));
    expect(parseMessage(commit)).toEqual({ kind: "commit", end: 0x1_16b3_74d8n });
  });

  it("are refused where they are cut short, or of a kind that nobody knows", () => {
    expect(() => parseMessage(message("I", int32(7), Buffer.from("Nx")))).toThrow(RangeError);
    expect(() => parseMessage(message("I", int32(7), Buffer.from("N"), row("12345").subarray(0, 9)))).toThrow(
      "cut short",
    );
    expect(() => parseMessage(message("?"))).toThrow('"?"');
    expect(() => parseMessage(message("I", int32(7), Buffer.from("O"), row("1")))).toThrow("instead of N");
  });
});

describe("SQL of changes", () => {
  const made = (described: Relation, ...changes: [kind: string, row: Row, old?: Row][]) => {
    const counts: RowCounts = new Map([['"public"."events"', 10n]]);
    const columns = described.columns.map(({ name }) => name);
    const statements = new Statements(counts, new Map([[7, { place: '"public"."events"', columns }]]));
    statements.add({ kind: "relation", relation: described });
    for (const [kind, values, old] of changes)
      if (kind === "delete") statements.add({ kind, relation: 7, old: values });
      else if (kind === "insert") statements.add({ kind, relation: 7, row: values });
      else statements.add({ kind: "update", relation: 7, row: values, ...(old ? { old } : {}) });
    return { made: statements.take(), count: counts.get('"public"."events"') };
  };

  it("puts rows that come one after the other into one statement, and counts them", () => {
    const found = made(relation("d", ["id"]), ["insert", ["1", "it's", null]], ["insert", ["2", "b\\", "{}"]]);
    expect(found).toEqual({
      made: [
        {
          sql: `INSERT INTO "public"."events" ("id", "body", "more") OVERRIDING SYSTEM VALUE VALUES ('1', 'it''s', NULL), ('2', 'b\\', '{}')`,
          rows: 2,
        },
      ],
      count: 12n,
    });
  });

  it("tells a row apart by its key, also where that changes, and leaves a large value alone that did not change", () => {
    const described = relation("d", ["id"]);
    expect(made(described, ["update", ["1", undefined, "{}"]]).made).toEqual([
      { sql: `UPDATE ONLY "public"."events" SET "more" = '{}' WHERE "id" = '1'`, rows: 1 },
    ]);
    expect(made(described, ["update", ["2", "b", "{}"], ["1", null, null]]).made).toEqual([
      { sql: `UPDATE ONLY "public"."events" SET "id" = '2', "body" = 'b', "more" = '{}' WHERE "id" = '1'`, rows: 1 },
    ]);
    expect(made(described, ["delete", ["1", null, null]])).toEqual({
      made: [{ sql: `DELETE FROM ONLY "public"."events" WHERE "id" = '1'`, rows: 1 }],
      count: 9n,
    });
  });

  it("changes one of several rows that are the same where a table has no key", () => {
    const described = relation("f", []);
    const test = `ctid = (SELECT ctid FROM ONLY "public"."events" WHERE "id" = '1' AND pg_catalog.format('%s', "id") COLLATE "C" = '1' AND "body" IS NOT DISTINCT FROM NULL AND pg_catalog.format('%s', "more") COLLATE "C" = '{}' LIMIT 1)`;
    expect(made(described, ["delete", ["1", null, "{}"]]).made).toEqual([
      { sql: `DELETE FROM ONLY "public"."events" WHERE ${test}`, rows: 1 },
    ]);
    expect(made(described, ["update", ["1", "b", "{}"], ["1", null, "{}"]]).made).toEqual([
      { sql: `UPDATE ONLY "public"."events" SET "body" = 'b' WHERE ${test}`, rows: 1 },
    ]);
    expect(made(described, ["update", ["1", null, "{}"], ["1", null, "{}"]]).made).toEqual([]);
  });

  it("is refused for a table that is not what it was: new, with another name or other columns, or truncated", () => {
    const known = new Map([[7, { place: '"public"."events"', columns: ["id", "body", "more"] }]]);
    const added = (changed: Partial<Relation>) => () =>
      new Statements(new Map(), known).add({ kind: "relation", relation: { ...relation("d", ["id"]), ...changed } });
    expect(added({})).not.toThrow();
    expect(added({ id: 8 })).toThrow(OtherTable);
    expect(added({ name: "others" })).toThrow('"public"."events" is called "public"."others"');
    expect(added({ columns: relation("d", ["id"]).columns.toReversed() })).toThrow("other columns");
    const statements = new Statements(new Map(), known);
    statements.add({ kind: "relation", relation: relation("d", ["id"]) });
    expect(() => statements.add({ kind: "truncate", relations: [7], cascade: false, restart: false })).toThrow(
      OtherTable,
    );
  });

  it("takes little more memory than a large value has", () => {
    const large = "x'".repeat(4 * 1024 ** 2);
    const before = process.memoryUsage().heapUsed;
    expect(made(relation("d", ["id"]), ["insert", ["1", large, null]]).made[0]?.sql.length).toBeGreaterThan(
      large.length,
    );
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(200 * 1024 ** 2);
  });

  it("is refused for a table that was not described, or whose rows cannot be told apart", () => {
    expect(() => new Statements(new Map(), new Map()).add({ kind: "insert", relation: 7, row: [] })).toThrow(
      "relation 7",
    );
    expect(() => made(relation("d", []), ["delete", ["1", null, null]])).toThrow("cannot be told apart");
  });
});

it("sees that a message is too large as soon as it begins, however its bytes come in pieces", () => {
  const framed = (kind: string, bytes: number) => {
    const made = Buffer.alloc(5 + bytes);
    made.write(kind, "latin1");
    made.writeUInt32BE(bytes + 4, 1);
    return made;
  };
  const stream = Buffer.concat([framed("d", 100), framed("Z", 0), framed("d", 100), framed("d", 101)]);
  const begun = stream.length - 101;
  for (const size of [1, 2, 3, 7, 104, 1_000]) {
    const bound = new MessageBound(100);
    let seen = 0;
    let isExceeded = false;
    while (!isExceeded && seen < stream.length) {
      isExceeded = bound.exceededBy(stream.subarray(seen, seen + size));
      seen += size;
    }
    expect([size, isExceeded]).toEqual([size, true]);
    expect(seen - begun).toBeLessThan(size);
  }
});
