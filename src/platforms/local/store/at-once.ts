import type { DatabaseSync } from "node:sqlite";

/** All of it is written, or none. @throws what `work` throws */
export function atOnce(db: DatabaseSync, work: () => void): void {
  db.exec("BEGIN");
  try {
    work();
    db.exec("COMMIT");
  } catch (error) {
    db.exec("ROLLBACK");
    throw error;
  }
}
