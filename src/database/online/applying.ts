import type pg from "pg";
import { UserError } from "../../model/errors.ts";
import { VALUES_AS_TEXT } from "../connection.ts";
import type { Statement } from "./statements.ts";

/** A transaction of the copy: large enough that its commit does not count. */
const MOST_STATEMENTS = 500;
const MOST_CHARACTERS = 8 * 1024 ** 2;
/** How text is read by who makes changes again; what is not whole is not used, so that it need not wait for disks. */
export const APPLY_SETTINGS = Object.entries({
  ...VALUES_AS_TEXT,
  standard_conforming_strings: "on",
  array_nulls: "on",
  transform_null_equals: "off",
  xmloption: "content",
  default_transaction_read_only: "off",
  synchronous_commit: "off",
})
  .map(([name, value]) => `SET ${name} = '${value}'`)
  .join("; ");

export function* batches(statements: readonly Statement[]): Generator<Statement[]> {
  let batch: Statement[] = [];
  let characters = 0;
  for (const statement of statements) {
    if (batch.length > 0 && (batch.length >= MOST_STATEMENTS || characters + statement.sql.length > MOST_CHARACTERS)) {
      yield batch;
      batch = [];
      characters = 0;
    }
    batch.push(statement);
    characters += statement.sql.length;
  }
  if (batch.length > 0) yield batch;
}

/** All at once, as one transaction. @throws UserError where the copy is not as the database was */
export async function apply(to: pg.Client, statements: readonly Statement[]): Promise<void> {
  const answer = await to.query(statements.map(({ sql }) => sql).join(";\n"));
  const results = (Array.isArray(answer) ? answer : [answer]) as { rowCount: number | null }[];
  let at = 0;
  for (const { sql, rows } of statements) {
    const found = results[at++]?.rowCount;
    if (found !== rows)
      throw differentCopy([`a change of ${rows} rows was one of ${found ?? "none"}: ${sql.slice(0, 60)}`]);
  }
}

/** It is begun again: a table that a snapshot sees while it is written again looks empty. */
export function differentCopy(different: readonly string[]): UserError {
  return new UserError("Unavailable", `the copy is not what the database is: ${different.slice(0, 5).join(", ")}`);
}
