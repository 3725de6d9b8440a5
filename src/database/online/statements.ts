import { identifier, literal } from "../connection.ts";
import type { Message, Relation, Row } from "./pgoutput.ts";

/** SQL that makes a change again, and how many rows it has to change. */
export interface Statement {
  sql: string;
  /** Undefined: any number. */
  rows: number | undefined;
}

/** Of tables, by which a difference is found without counting again what is large. */
export type RowCounts = Map<string, bigint>;

const MOST_ROWS = 200;
const MOST_CHARACTERS = 256 * 1024;

/** Types without an equality of their own, by OID: json, xml, and the geometric ones, whose `=` compares areas. */
const COMPARED_AS_TEXT = new Set([114, 142, 600, 601, 602, 603, 604, 628, 718]);

/**
 * Makes SQL of changes, in their order. Rows that are inserted one after the other into the same table are one statement.
 * Within a server's log each change is a row's, and so it is here: a statement that changes another number of rows is a difference.
 */
export class Statements {
  readonly #relations = new Map<number, Relation>();
  readonly #counts: RowCounts;
  #inserts: { relation: number; columns: string; rows: string[]; characters: number } | undefined;
  #made: Statement[] = [];

  /** @param counts kept up to date */
  constructor(counts: RowCounts) {
    this.#counts = counts;
  }

  /** @throws Error for a relation that was not described */
  add(message: Message): void {
    switch (message.kind) {
      case "relation":
        this.#close();
        this.#relations.set(message.relation.id, message.relation);
        return;
      case "insert":
        return this.#insert(message.relation, message.row);
      case "update":
        return this.#push(this.#update(this.#named(message.relation), message));
      case "delete": {
        const relation = this.#named(message.relation);
        this.#count(relation, -1n);
        return this.#push({ sql: `DELETE FROM ${placeOf(relation)} WHERE ${rowIs(relation, message.old)}`, rows: 1 });
      }
      case "truncate": {
        const relations = message.relations.map((id) => this.#named(id));
        for (const relation of relations) this.#counts.set(placeOf(relation), 0n);
        const places = relations.map(placeOf).join(", ");
        return this.#push({
          sql: `TRUNCATE ONLY ${places}${message.restart ? " RESTART IDENTITY" : ""}`,
          rows: undefined,
        });
      }
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

  #named(id: number): Relation {
    const relation = this.#relations.get(id);
    if (!relation) throw new Error(`a change is of relation ${id}, which was not described`);
    return relation;
  }

  #count(relation: Relation, by: bigint): void {
    const place = placeOf(relation);
    const known = this.#counts.get(place);
    // One that was made since is found by its schema.
    if (known !== undefined) this.#counts.set(place, known + by);
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
      sql: `UPDATE ${placeOf(relation)} SET ${changed.join(", ")} WHERE ${rowIs(relation, old ?? row)}`,
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

export function placeOf({ schema, name }: { schema: string; name: string }): string {
  return `${identifier(schema)}.${identifier(name)}`;
}

function valueOf(value: string | null | undefined): string {
  if (value === undefined) throw new Error("a value is missing that a new row has");
  return value === null ? "NULL" : literal(value);
}

function rowIs(relation: Relation, row: Row): string {
  const tests = relation.columns.flatMap(({ name, type, isKey }, at) => {
    const value = row[at];
    if (!(relation.isFull || isKey) || value === undefined) return [];
    if (value === null) return [`${identifier(name)} IS NULL`];
    const column = COMPARED_AS_TEXT.has(type) ? `${identifier(name)}::pg_catalog.text` : identifier(name);
    return [`${column} = ${literal(value)}`];
  });
  if (tests.length === 0) throw new Error(`rows of ${placeOf(relation)} cannot be told apart`);
  const test = tests.join(" AND ");
  // Rows may be the same in all of their columns, of which one was meant.
  return relation.isFull ? `ctid = (SELECT ctid FROM ${placeOf(relation)} WHERE ${test} LIMIT 1)` : test;
}
