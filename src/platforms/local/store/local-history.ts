import { chmodSync, renameSync, rmSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { messageOf } from "../../../model/errors.ts";
import type { Sample } from "../../../model/history.ts";
import type { HistoryStore, LevelSample } from "../../../ports/history-store.ts";
import { atOnce } from "./at-once.ts";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS samples (
    step INTEGER NOT NULL, at INTEGER NOT NULL, count INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (step, at)) STRICT, WITHOUT ROWID;
`;

/**
 * A file of its own: the store is copied after each change of its tenants, and must open whatever becomes of a history; this one is put aside
 * where it is damaged.
 */
export class LocalHistory implements HistoryStore {
  readonly #db: DatabaseSync;

  constructor(file: string, warn: (sentence: string) => void = () => {}) {
    this.#db = openedOrBegun(file, warn);
  }

  async read(step: number, from: number, to: number): Promise<Sample[]> {
    const [first, end] = [whole(from), whole(to)];
    return this.#db
      .prepare("SELECT at, count, body FROM samples WHERE step = ? AND at >= ? AND at < ? ORDER BY at")
      .all(step, first, end)
      .map((row) => ({
        at: Number(row["at"]),
        count: Number(row["count"]),
        values: JSON.parse(String(row["body"])) as Sample["values"],
      }));
  }

  async last(step: number): Promise<number | undefined> {
    const { at } = this.#db.prepare("SELECT max(at) AS at FROM samples WHERE step = ?").get(step) as {
      at: number | null;
    };
    return at ?? undefined;
  }

  async write(samples: readonly LevelSample[]): Promise<void> {
    const insert = this.#db.prepare("INSERT OR REPLACE INTO samples (step, at, count, body) VALUES (?, ?, ?, ?)");
    atOnce(this.#db, () => {
      for (const { step, at, count, values } of samples) insert.run(step, at, count, JSON.stringify(values));
    });
  }

  async prune(step: number, from: number, to: number): Promise<void> {
    this.#db.prepare("DELETE FROM samples WHERE step = ? AND (at < ? OR at >= ?)").run(step, whole(from), whole(to));
  }

  async close(): Promise<void> {
    if (this.#db.isOpen) this.#db.close();
  }
}

const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;
class Damaged extends Error {}

/** Nothing that may be wrong with a history keeps the controller from starting. */
function openedOrBegun(file: string, warn: (sentence: string) => void): DatabaseSync {
  try {
    return opened(file);
  } catch (error) {
    const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
    if (error instanceof Damaged || code === SQLITE_CORRUPT || code === SQLITE_NOTADB) {
      const aside = `${file}.damaged`;
      warn(`${file} is damaged (${messageOf(error)}): it is kept as ${aside}, and the plots begin again`);
      for (const suffix of ["-wal", "-shm"]) rmSync(file + suffix, { force: true });
      renameSync(file, aside);
      return opened(file);
    }
    warn(
      `${file} cannot be opened (${messageOf(error)}): the plots are kept in memory until the controller is restarted`,
    );
    return opened(":memory:");
  }
}

/** @throws Damaged, or what SQLite says of a file that is none of its own */
function opened(file: string): DatabaseSync {
  const db = new DatabaseSync(file);
  try {
    if (file !== ":memory:") chmodSync(file, 0o600);
    // A power cut may take the last minutes along, which nobody misses.
    db.exec("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
    const { quick_check: found } = db.prepare("PRAGMA quick_check(1)").get() as { quick_check: string };
    if (found !== "ok") throw new Damaged(found);
    db.exec(SCHEMA);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** SQLite's integers have 64 bits; a beginning without one is the first of them that a double has. */
function whole(time: number): number {
  return Math.max(Number.MIN_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, Math.floor(time)));
}
