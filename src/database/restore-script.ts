import { UserError } from "../model/errors.ts";
import type { Bytes } from "../ports/backups.ts";

/** A part of what pg_restore writes without a database: statements, or the rows of one table. */
export type ScriptPart = { sql: string } | { copy: string; rows: Bytes };

/** All statements of Synapse's schema have 0.3 MiB. */
const MOST_SQL_BYTES = 64 * 1024 ** 2;
const COPY = /^COPY .+ FROM stdin;$/;
/** Of psql; it guards against what nobody here runs. */
const META = /^\\(un)?restrict [A-Za-z0-9]+$/;
/** Begins what makes one object. What is sent together is bounded in time together: many indexes of large tables would be too long. */
const OBJECT = /^-- Name: .+; Type: .+; Schema: .+; Owner: /;
/** Servers before 17 do not know it. */
const NEWER = "SET transaction_timeout = 0;";
/** A row ends before it, and no row is like it: a backslash is written twice. */
const END = Buffer.from("\n\\.\n");
const NEWLINE = 0x0a;

/**
 * Takes the script apart as it comes, without holding more of it than the statements of one object. Rows have to be read to their end before the next part is
 * asked for. What a dump's owner writes into names and functions may cut it in wrong places; the server then refuses what comes of it.
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
    let lines: string[] = [];
    let bytes = 0;
    for (let isOver = false; !isOver;) {
      const at = rest.indexOf(NEWLINE);
      if (at === -1 && (await more())) {
        if (bytes + rest.length > MOST_SQL_BYTES) throw tooLong();
        continue;
      }
      isOver = at === -1;
      const line = rest.subarray(0, isOver ? rest.length : at).toString("utf8");
      rest = rest.subarray(isOver ? rest.length : at + 1);
      const isCopy = COPY.test(line);
      if (isCopy || OBJECT.test(line)) {
        if (lines.length > 0) yield { sql: lines.join("\n") };
        [lines, bytes] = [[], 0];
      }
      if (isCopy) yield { copy: line, rows: rows() };
      else if (line !== "" && line !== NEWER && !line.startsWith("--") && !META.test(line)) {
        bytes += line.length;
        if (bytes > MOST_SQL_BYTES) throw tooLong();
        lines.push(line);
      }
    }
    if (lines.length > 0) yield { sql: lines.join("\n") };
  } finally {
    await source.return?.();
  }
}

function tooLong(): UserError {
  return new UserError("InvalidInput", `the dump has more than ${MOST_SQL_BYTES / 1024 ** 2} MiB of statements`);
}
