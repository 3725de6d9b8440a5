import { randomBytes } from "node:crypto";
import { identifier, placeOf } from "../connection.ts";
import type { Message, Relation, Row } from "./pgoutput.ts";

/** SQL that makes a change again, and how many rows it has to change. */
export interface Statement {
  sql: string;
  rows: number;
}

/** Of tables, by which a difference is found without counting again what is large. */
export type RowCounts = Map<string, bigint>;

/** What a table was when the copy was made, by its OID: a change of one that is another by then belongs nowhere. */
export type KnownTables = ReadonlyMap<number, { place: string; columns: readonly string[] }>;

/** A table that is not what it was. */
export class OtherTable extends Error {}

const MOST_ROWS = 200;
const MOST_CHARACTERS = 256 * 1024;

/** Types whose values are the same where `=` says so, and written one way: bool, bytea, int8, int2, int4, oid, date, timestamp, timestamptz, uuid. */
const EXACT = new Set([16, 17, 20, 21, 23, 26, 1082, 1114, 1184, 2950]);
/** Types of which `=` finds, by an index where there is one, what may be written in several ways: text, float4, float8, bpchar, varchar, numeric, jsonb. */
const COMPARABLE = new Set([25, 700, 701, 1042, 1043, 1700, 3802]);

/**
 * Makes SQL of changes, in their order. Rows that are inserted one after the other into the same table are one statement.
 * Within a server's log each change is a row's, and so it is here: a statement that changes another number of rows is a difference.
 */
export class Statements {
  readonly #relations = new Map<number, Relation>();
  readonly #counts: RowCounts;
  readonly #known: KnownTables;
  #inserts: { relation: number; columns: string; rows: string[]; characters: number } | undefined;
  #made: Statement[] = [];

  /** @param counts kept up to date */
  constructor(counts: RowCounts, known: KnownTables) {
    this.#counts = counts;
    this.#known = known;
  }

  /** @throws OtherTable; Error for a relation that was not described */
  add(message: Message): void {
    switch (message.kind) {
      case "relation":
        this.#close();
        this.#checkKnown(message.relation);
        this.#relations.set(message.relation.id, message.relation);
        return;
      case "insert":
        return this.#insert(message.relation, message.row);
      case "update":
        return this.#push(this.#update(this.#named(message.relation), message));
      case "delete": {
        const relation = this.#named(message.relation);
        this.#count(relation, -1n);
        return this.#push({
          sql: `DELETE FROM ONLY ${placeOf(relation)} WHERE ${rowIs(relation, message.old)}`,
          rows: 1,
        });
      }
      case "truncate":
        // As with one that is rewritten, a snapshot from before may have seen it empty already.
        throw new OtherTable(`${message.relations.map((id) => placeOf(this.#named(id))).join(", ")} was truncated`);
      default:
    }
  }

  /** What was added since. */
  take(): Statement[] {
    this.#close();
    const made = this.#made;
    this.#made = [];
    return made;
  }

  #checkKnown(relation: Relation): void {
    const known = this.#known.get(relation.id);
    const place = placeOf(relation);
    if (!known) throw new OtherTable(`${place} is new`);
    if (known.place !== place) throw new OtherTable(`${known.place} is called ${place}`);
    const columns = relation.columns.map(({ name }) => name);
    if (JSON.stringify(columns) !== JSON.stringify(known.columns)) throw new OtherTable(`${place} has other columns`);
  }

  #named(id: number): Relation {
    const relation = this.#relations.get(id);
    if (!relation) throw new Error(`a change is of relation ${id}, which was not described`);
    return relation;
  }

  #count(relation: Relation, by: bigint): void {
    const place = placeOf(relation);
    this.#counts.set(place, (this.#counts.get(place) ?? 0n) + by);
  }

  #insert(id: number, row: Row): void {
    const relation = this.#named(id);
    this.#count(relation, 1n);
    const values = `(${row.map((value) => valueOf(value)).join(", ")})`;
    const open = this.#inserts;
    if (open?.relation !== id || open.rows.length >= MOST_ROWS || open.characters > MOST_CHARACTERS) {
      this.#close();
      const columns = relation.columns.map(({ name }) => identifier(name)).join(", ");
      this.#inserts = { relation: id, columns, rows: [values], characters: values.length };
      return;
    }
    open.rows.push(values);
    open.characters += values.length;
  }

  #update(relation: Relation, { old, row }: { old?: Row; row: Row }): Statement | undefined {
    const changed = relation.columns.flatMap(({ name, isKey }, at) => {
      const value = row[at];
      // Without the old row, what tells it apart is the same; a full one tells what is.
      const isSame = old === undefined ? isKey : (relation.isFull || isKey) && old[at] === value;
      return value === undefined || isSame ? [] : [`${identifier(name)} = ${valueOf(value)}`];
    });
    if (changed.length === 0) return undefined;
    return {
      sql: `UPDATE ONLY ${placeOf(relation)} SET ${changed.join(", ")} WHERE ${rowIs(relation, old ?? row)}`,
      rows: 1,
    };
  }

  #push(statement: Statement | undefined): void {
    this.#close();
    if (statement) this.#made.push(statement);
  }

  #close(): void {
    const open = this.#inserts;
    if (!open) return;
    this.#inserts = undefined;
    const place = placeOf(this.#named(open.relation));
    if (open.columns !== "") {
      const sql = `INSERT INTO ${place} (${open.columns}) OVERRIDING SYSTEM VALUE VALUES ${open.rows.join(", ")}`;
      this.#made.push({ sql, rows: open.rows.length });
      return;
    }
    // A table may have no column at all.
    for (const _ of open.rows) this.#made.push({ sql: `INSERT INTO ${place} DEFAULT VALUES`, rows: 1 });
  }
}

function valueOf(value: string | null | undefined): string {
  if (value === undefined) throw new Error("a value is missing that a new row has");
  return value === null ? "NULL" : quoted(value);
}

const SHORT_CHARACTERS = 1_000;
/** A word of chance, which no tenant can know. */
const TAG = `$q${randomBytes(8).toString("hex")}$`;

/**
 * For a session with standard_conforming_strings. A long value goes as it is: to look for quotes in megabytes of them, as the driver does one by one,
 * takes seconds and many times its memory.
 */
function quoted(text: string): string {
  if (text.length <= SHORT_CHARACTERS) return `'${text.replaceAll("'", "''")}'`;
  if (text.includes(TAG)) throw new Error("a value has the word in it that was to mark its end");
  return `${TAG}${text}${TAG}`;
}

function rowIs(relation: Relation, row: Row): string {
  const tests = relation.columns.flatMap(({ name, type, isKey }, at) => {
    const value = row[at];
    if (!(relation.isFull || isKey) || value === undefined) return [];
    // Not `IS NULL`, which a composite value of nothing but NULLs is as well.
    if (value === null) return [`${identifier(name)} IS NOT DISTINCT FROM NULL`];
    // A key is the same where `=` says so, as it is unique by that.
    const isEqual = `${identifier(name)} = ${quoted(value)}`;
    if (!relation.isFull || EXACT.has(type)) return [isEqual];
    // Casts to text are not always what the server writes (bool, inet, char(n)).
    const isWritten = `pg_catalog.format('%s', ${identifier(name)}) COLLATE "C" = ${quoted(value)}`;
    return COMPARABLE.has(type) ? [isEqual, isWritten] : [isWritten];
  });
  if (tests.length === 0) {
    // One without columns: its rows are all the same.
    if (relation.columns.length > 0) throw new Error(`rows of ${placeOf(relation)} cannot be told apart`);
    return `ctid = (SELECT ctid FROM ONLY ${placeOf(relation)} LIMIT 1)`;
  }
  const test = tests.join(" AND ");
  // Rows may be the same in all of their columns, of which one was meant.
  return relation.isFull ? `ctid = (SELECT ctid FROM ONLY ${placeOf(relation)} WHERE ${test} LIMIT 1)` : test;
}
