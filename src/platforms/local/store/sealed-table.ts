import type { DatabaseSync } from "node:sqlite";

export interface Sealing {
  sealed(place: string, text: string): string;
  opened(place: string, text: string): string;
}

export interface SealedTableOptions {
  table: string;
  /** The column of the primary key; the other is `body`. */
  key: string;
  /** Each row is sealed for its place, `PLACE/KEY`: moved to another one, it cannot be opened. */
  place: string;
}

/** Objects as JSON by their names, each sealed, in the store's own file. */
export class SealedTable<T> {
  readonly #db: DatabaseSync;
  readonly #sealing: Sealing;
  readonly #options: SealedTableOptions;

  constructor(db: DatabaseSync, sealing: Sealing, options: SealedTableOptions) {
    this.#db = db;
    this.#sealing = sealing;
    this.#options = options;
  }

  /** By name, in order. */
  list(): T[] {
    const { table, key } = this.#options;
    const rows = this.#db.prepare(`SELECT ${key} AS name, body FROM ${table} ORDER BY ${key}`).all();
    return rows.map(({ name, body }) => this.#read(String(name), String(body)));
  }

  get(name: string): T | undefined {
    const { table, key } = this.#options;
    const row = this.#db.prepare(`SELECT body FROM ${table} WHERE ${key} = ?`).get(name);
    return row && this.#read(name, String(row["body"]));
  }

  put(name: string, value: T): void {
    const { table, key, place } = this.#options;
    const body = this.#sealing.sealed(`${place}/${name}`, JSON.stringify(value));
    this.#db
      .prepare(
        `INSERT INTO ${table} (${key}, body) VALUES (?, ?) ON CONFLICT (${key}) DO UPDATE SET body = excluded.body`,
      )
      .run(name, body);
  }

  remove(name: string): void {
    this.#db.prepare(`DELETE FROM ${this.#options.table} WHERE ${this.#options.key} = ?`).run(name);
  }

  #read(name: string, body: string): T {
    return JSON.parse(this.#sealing.opened(`${this.#options.place}/${name}`, body)) as T;
  }
}
