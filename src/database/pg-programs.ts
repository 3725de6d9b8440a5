import { spawn } from "node:child_process";
import { join } from "node:path";
import { Readable } from "node:stream";
import { finished, pipeline } from "node:stream/promises";
import { messageOf, UserError } from "../model/errors.ts";
import { machineProblem } from "../model/machine-problem.ts";
import type { Bytes } from "../ports/backups.ts";
import { DatabaseTrouble } from "../ports/databases.ts";
import { ASIDE_SCHEMA } from "./aside.ts";
import type { Login } from "./connection.ts";

/** Where pg_dump and pg_restore are, and what their environment has. */
export interface PgPrograms {
  binDir: string;
  environment: Record<string, string>;
  /** A file with the authorities that servers' certificates are verified by, for logins that ask for it. */
  authorities?: string;
}

type DatabaseLogin = Login & { database: string };

const WORDS_KEPT = 8_192;

/** The dump as it comes. Its stream fails where pg_dump does, so that what is cut short is never taken for whole. */
export async function* pgDump(
  programs: PgPrograms,
  login: DatabaseLogin,
  snapshot: string,
  signal: AbortSignal,
  more: readonly string[] = [],
): AsyncGenerator<Uint8Array, void, undefined> {
  const program = startProgram(
    programs,
    "pg_dump",
    [
      "--format=custom",
      "--no-owner",
      "--no-privileges",
      `--snapshot=${snapshot}`,
      // What streams a database to another server is not part of a copy of it.
      "--no-publications",
      "--no-subscriptions",
      // What a restore put aside is not what the tenant has.
      `--exclude-schema=${ASIDE_SCHEMA}`,
      // Waiting for a lock, it would hold up everybody who comes after.
      "--lock-wait-timeout=30s",
      ...more,
    ],
    login,
    signal,
  );
  try {
    program.stdin.end();
    for await (const chunk of program.stdout) yield chunk as Uint8Array;
    await program.succeeded();
  } finally {
    program.kill();
  }
}

/** @throws UserError InvalidInput where pg_restore does not take the dump */
export async function pgRestore(
  programs: PgPrograms,
  login: DatabaseLogin,
  dump: Bytes,
  signal: AbortSignal,
): Promise<void> {
  const args = ["--no-owner", "--no-privileges", "--exit-on-error", "--format=custom"];
  const program = startProgram(programs, "pg_restore", [...args, `--dbname=${login.database}`], login, signal);
  program.stdout.resume();
  let broken: unknown;
  const source = Readable.from(dump, { objectMode: false });
  source.on("error", (error) => (broken = error));
  try {
    // Its words say more than that it reads no further.
    await pipeline(source, program.stdin).catch(() => {
      if (broken !== undefined) program.kill();
    });
    await program.succeeded();
  } catch (error) {
    throw broken ?? error;
  } finally {
    program.kill();
  }
}

/**
 * What a dump has for Synapse, as statements and rows; a fence is not among them. Its stream fails where the dump does, at the latest at its end.
 * @throws UserError InvalidInput where pg_restore does not take the dump
 */
export async function* pgScript(
  programs: PgPrograms,
  dump: Bytes,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const args = ["--no-owner", "--no-privileges", "--no-comments", "--schema=public", "--format=custom", "--file=-"];
  const program = startProgram(programs, "pg_restore", args, undefined, signal);
  let broken: unknown;
  const source = Readable.from(dump, { objectMode: false });
  source.on("error", (error) => (broken = error));
  const fed = pipeline(source, program.stdin).catch(() => {
    if (broken !== undefined) program.kill();
  });
  try {
    for await (const chunk of program.stdout) yield chunk as Uint8Array;
    await fed;
    await program.succeeded();
  } catch (error) {
    throw broken ?? error;
  } finally {
    source.destroy();
    program.kill();
  }
  if (broken !== undefined) throw broken;
}

/** Of a copy to another server. What a table's owner has made of it may run without end while it is filled. */
export const COPY_MS = 2 * 3_600_000;

/** @throws UserError Conflict where it takes longer: the next attempt would as well */
export async function copiedWithin<T>(
  copyMs: number,
  signal: AbortSignal,
  copy: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = AbortSignal.timeout(copyMs);
  try {
    return await copy(AbortSignal.any([signal, late]));
  } catch (error) {
    if (!late.aborted || signal.aborted) throw error;
    const words = copyMs >= 3_600_000 ? `${copyMs / 3_600_000} hours` : `${copyMs / 1_000} seconds`;
    throw new UserError("Conflict", `its rows were not copied in ${words}`, { cause: error });
  }
}

/** Runs one of PostgreSQL's programs. Ends with `signal`, or by `kill`. */
export function startProgram(
  programs: PgPrograms,
  name: string,
  args: string[],
  login: DatabaseLogin | undefined,
  signal: AbortSignal,
) {
  const child = spawn(join(programs.binDir, name), args, {
    env: { ...programs.environment, ...(login ? loginEnvironment(programs, login) : {}) },
    stdio: "pipe",
    signal,
  });
  let words = "";
  child.stderr.on("data", (chunk: Buffer) => (words = `${words}${chunk.toString("utf8")}`.slice(-WORDS_KEPT)));
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", (error) => {
      child.stdout.destroy();
      reject(
        signal.aborted
          ? error
          : new UserError("Environment", `${name} cannot be run: ${machineProblem(error) ?? messageOf(error)}`),
      );
    });
    child.once("close", (code) => resolve(code ?? -1));
  });
  // Asked about only after its output.
  ended.catch(() => {});
  child.stdin.on("error", () => {});
  return {
    stdin: child.stdin,
    stdout: child.stdout,
    /** The last of what it said on stderr. */
    words: () => words,
    kill: () => void child.kill("SIGKILL"),
    succeeded: async (): Promise<void> => {
      await finished(child.stderr, { error: false }).catch(() => {});
      const code = await ended;
      signal.throwIfAborted();
      if (code !== 0) throw problemOf(name, words, code);
    },
  };
}

function loginEnvironment({ authorities }: PgPrograms, login: DatabaseLogin): Record<string, string> {
  const { sslMode = "disable" } = login;
  return {
    PGHOST: login.host,
    PGPORT: String(login.port),
    PGUSER: login.user,
    PGPASSWORD: login.password,
    PGDATABASE: login.database,
    PGSSLMODE: sslMode,
    // Where there is such a file, `require` would verify as well.
    ...(authorities !== undefined && sslMode.startsWith("verify-") ? { PGSSLROOTCERT: authorities } : {}),
    PGCONNECT_TIMEOUT: "10",
    PGAPPNAME: "synapse-shards backup",
  };
}

/** Ended by a move, or because the server stops: it is done again. */
export function isInterrupted(error: unknown): boolean {
  return error instanceof UserError && error.code === "Unavailable";
}

function problemOf(name: string, words: string, code: number): UserError {
  const lines = words
    .trim()
    .split("\n")
    .map((line) => line.replace(/^pg_(dump|restore): (error: )?/, ""));
  const said = lines.findLast((line) => line !== "" && !/^(Command was|detail:|hint:)/.test(line));
  const why = `${name} failed: ${said ?? `it ended with ${code}`}`;
  if (/terminating connection|server closed the connection|could not connect|connection to server/.test(words))
    return new UserError("Unavailable", why);
  if (/No space left on device|disk full|could not extend file/.test(words))
    return new DatabaseTrouble("DatabaseFull", `${why}: free some space on the disk of the databases`);
  return new UserError(name === "pg_restore" ? "InvalidInput" : "Environment", why);
}
