/**
 * Reads what PostgreSQL's output plugin `pgoutput` says of changes, version 1 of its protocol
 * (https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html). Values stay the text that the server wrote: what drivers make
 * of it loses microseconds and digits.
 */

/** In the order of the relation's columns; undefined: a large value that did not change, which is not sent. */
export type Row = readonly (string | null | undefined)[];

export interface RelationColumn {
  name: string;
  /** OID. */
  type: number;
  /** Part of the replica identity. */
  isKey: boolean;
}

export interface Relation {
  id: number;
  schema: string;
  name: string;
  /** Rows are told apart by all of their columns. */
  isFull: boolean;
  columns: readonly RelationColumn[];
}

export type Message =
  | { kind: "relation"; relation: Relation }
  | { kind: "insert"; relation: number; row: Row }
  | { kind: "update"; relation: number; old?: Row; row: Row }
  | { kind: "delete"; relation: number; old: Row }
  | { kind: "truncate"; relations: readonly number[]; cascade: boolean; restart: boolean }
  /** @param end position in the log behind it */
  | { kind: "commit"; end: bigint }
  /** Begins, origins and names of types, of which nothing follows here. */
  | { kind: "other" };

const FULL = "f".charCodeAt(0);

/** @throws Error for what is none */
export function parseMessage(data: Buffer): Message {
  const reader = new Reader(data);
  const kind = reader.char();
  switch (kind) {
    case "R":
      return { kind: "relation", relation: relationIn(reader) };
    case "I":
      return { kind: "insert", relation: reader.int32(), row: rowAfter(reader, "N") };
    case "U":
      return updateIn(reader);
    case "D": {
      const relation = reader.int32();
      return { kind: "delete", relation, old: rowAfter(reader, "K", "O") };
    }
    case "T": {
      const count = reader.int32();
      const options = reader.int8();
      const relations = Array.from({ length: count }, () => reader.int32());
      return { kind: "truncate", relations, cascade: (options & 1) !== 0, restart: (options & 2) !== 0 };
    }
    case "C":
      reader.int8();
      reader.int64();
      return { kind: "commit", end: reader.int64() };
    case "B":
    case "O":
    case "Y":
      return { kind: "other" };
    default:
      throw new Error(`pgoutput sent a message of the unknown kind ${JSON.stringify(kind)}`);
  }
}

function relationIn(reader: Reader): Relation {
  const id = reader.int32();
  const schema = reader.string() || "pg_catalog";
  const name = reader.string();
  const isFull = reader.int8() === FULL;
  const columns = Array.from({ length: reader.int16() }, () => {
    const isKey = (reader.int8() & 1) !== 0;
    const column = { isKey, name: reader.string(), type: reader.int32() };
    reader.int32();
    return column;
  });
  return { id, schema, name, isFull, columns };
}

function updateIn(reader: Reader): Message {
  const relation = reader.int32();
  const first = reader.char();
  if (first === "N") return { kind: "update", relation, row: rowIn(reader) };
  const old = rowIn(reader);
  return { kind: "update", relation, old, row: rowAfter(reader, "N") };
}

function rowAfter(reader: Reader, ...marks: string[]): Row {
  const mark = reader.char();
  if (!marks.includes(mark)) throw new Error(`pgoutput sent ${JSON.stringify(mark)} instead of ${marks.join(" or ")}`);
  return rowIn(reader);
}

function rowIn(reader: Reader): Row {
  return Array.from({ length: reader.int16() }, () => {
    const kind = reader.char();
    if (kind === "n") return null;
    if (kind === "u") return undefined;
    if (kind === "t") return reader.text(reader.int32());
    throw new Error(`pgoutput sent a value of the unknown kind ${JSON.stringify(kind)}`);
  });
}

class Reader {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  char(): string {
    return String.fromCharCode(this.int8());
  }

  int8(): number {
    return this.#data.readUInt8(this.#at++);
  }

  int16(): number {
    this.#at += 2;
    return this.#data.readUInt16BE(this.#at - 2);
  }

  /** OIDs have no sign. */
  int32(): number {
    this.#at += 4;
    return this.#data.readUInt32BE(this.#at - 4);
  }

  int64(): bigint {
    this.#at += 8;
    return this.#data.readBigUInt64BE(this.#at - 8);
  }

  text(length: number): string {
    if (this.#at + length > this.#data.length) throw new Error("pgoutput sent a message that is cut short");
    this.#at += length;
    return this.#data.toString("utf8", this.#at - length, this.#at);
  }

  string(): string {
    const end = this.#data.indexOf(0, this.#at);
    if (end < 0) throw new Error("pgoutput sent a message that is cut short");
    const text = this.text(end - this.#at);
    this.#at += 1;
    return text;
  }
}
