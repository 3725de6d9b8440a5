import { UserError } from "../model/errors.ts";
import type { Bytes } from "../ports/backups.ts";
import { SqlQuotes } from "./sql-quotes.ts";

/** A part of what pg_restore writes without a database: statements, or the rows of one table. */
export type ScriptPart = { sql: string } | { copy: string; rows: Bytes };

/** All statements of Synapse's schema have 0.3 MiB. */
const MOST_SQL_BYTES = 64 * 1024 ** 2;
/** Statements are sent once there are so many: rows may be statements, too (`pg_dump --inserts`). */
const PART_BYTES = 1024 ** 2;
const COPY = /^COPY .+ FROM stdin;$/s;
/** Of psql; it guards against what nobody here runs. */
const META = /^\\(un)?restrict [A-Za-z0-9]+$/;
/** Begins what makes one object. What is sent together is bounded in time together: many indexes of large tables would be too long. */
const OBJECT = "-- Name: ";
/** Servers before 17 do not know it. */
const NEWER = "SET transaction_timeout = 0;";
/** An option by which newer minor versions note for themselves when a column was made. Others do not know it, and their pg_dump does not leave it out. */
const SET = " SET (";
const NOTE = /^pg_attver=\d+$/;
/** A row ends before it, and no row is like it: a backslash is written twice. */
const END = Buffer.from("\n\\.\n");
const NEWLINE = 0x0a;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Takes the script apart as it comes, without holding more of it than the statements of one object. Rows have to be read to their end before the next part is
 * asked for. Whatever a dump's owner writes into names, defaults and functions stays as it is.
 */
export async function* scriptParts(script: Bytes): AsyncGenerator<ScriptPart, void, undefined> {
  const source = script[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  const more = async (): Promise<boolean> => {
    const next = await source.next();
    if (next.done) return false;
    rest = rest.length === 0 ? Buffer.from(next.value) : Buffer.concat([rest, next.value]);
    return true;
  };

  async function* rows(): AsyncGenerator<Uint8Array, void, undefined> {
    // The line before ends, too: a table without rows has nothing but the end.
    rest = Buffer.concat([Buffer.from("\n"), rest]);
    let isFirst = true;
    for (;;) {
      const end = rest.indexOf(END);
      // As much as is not the beginning of an end.
      const ready = end === -1 ? Math.max(0, rest.length - END.length + 1) : end + 1;
      const content = rest.subarray(isFirst ? 1 : 0, ready);
      if (ready > 0) isFirst = false;
      rest = rest.subarray(end === -1 ? ready : end + END.length);
      if (content.length > 0) yield content;
      if (end !== -1) return;
      if (!(await more())) throw new UserError("InvalidInput", "the dump ends in the midst of a table");
    }
  }

  try {
    const quotes = new SqlQuotes();
    let lines: string[] = [];
    let bytes = 0;
    // Of more than one line where a name, a literal or a function's body goes over more.
    let line = "";
    let searched = 0;
    for (let isOver = false; !isOver;) {
      const at = rest.indexOf(NEWLINE, searched);
      if (at === -1) {
        searched = rest.length;
        if (bytes + line.length + rest.length > MOST_SQL_BYTES) throw tooLong();
        if (await more()) continue;
      }
      isOver = at === -1;
      const read = textOf(rest.subarray(0, isOver ? rest.length : at));
      rest = rest.subarray(isOver ? rest.length : at + 1);
      searched = 0;
      quotes.read(read);
      line += read;
      if (bytes + line.length > MOST_SQL_BYTES) throw tooLong();
      if (quotes.isOpen && !isOver) {
        line += "\n";
        continue;
      }
      const whole = withoutNotes(line);
      line = "";
      const isCopy = COPY.test(whole);
      const isLong = bytes > PART_BYTES && lines.at(-1)?.endsWith(";") === true;
      if (lines.length > 0 && (isCopy || isLong || whole.startsWith(OBJECT))) {
        yield { sql: lines.join("\n") };
        [lines, bytes] = [[], 0];
      }
      if (isCopy) yield { copy: whole, rows: rows() };
      else if (whole !== "" && whole !== NEWER && !whole.startsWith("--") && !META.test(whole)) {
        bytes += whole.length;
        lines.push(whole);
      }
    }
    if (lines.length > 0) yield { sql: lines.join("\n") };
  } finally {
    await source.return?.();
  }
}

function withoutNotes(line: string): string {
  const at = line.lastIndexOf(SET);
  if (at === -1 || !line.endsWith(");") || !/^ALTER (FOREIGN )?TABLE ONLY /.test(line)) return line;
  const options = line.slice(at + SET.length, -2).split(", ");
  const kept = options.filter((option) => !NOTE.test(option));
  if (kept.length === options.length) return line;
  return kept.length === 0 ? "" : `${line.slice(0, at)}${SET}${kept.join(", ")});`;
}

function textOf(line: Uint8Array): string {
  try {
    return UTF8.decode(line);
  } catch (error) {
    throw new UserError("InvalidInput", "the dump is not in UTF-8, which Synapse's databases are", { cause: error });
  }
}

function tooLong(): UserError {
  return new UserError("InvalidInput", `the dump has more than ${MOST_SQL_BYTES / 1024 ** 2} MiB of statements`);
}
