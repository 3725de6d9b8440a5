import { spawn } from "node:child_process";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { messageOf, UserError } from "../model/errors.ts";
import { machineProblem } from "../model/machine-problem.ts";
import type { Bytes } from "../ports/backups.ts";
import { DatabaseTrouble } from "../ports/databases.ts";
import { ASIDE_SCHEMA } from "./aside.ts";
import type { Login } from "./connection.ts";
import { startRelay } from "./tls-relay.ts";

/** Where pg_dump and pg_restore are, and what their environment has. */
export interface PgPrograms {
  binDir: string;
  environment: Record<string, string>;
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
  const program = await startProgram(
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

/** What Synapse has in a database: no fence, nothing of others. */
export const OF_SYNAPSE = ["--schema=public", "--no-comments"];

/**
 * What a dump is made of, as statements and rows. Its stream fails where the dump does, at the latest at its end.
 * @throws UserError InvalidInput where pg_restore does not take the dump
 */
export async function* pgScript(
  programs: PgPrograms,
  dump: Bytes,
  signal: AbortSignal,
  only: readonly string[] = [],
): AsyncGenerator<Uint8Array, void, undefined> {
  const args = ["--no-owner", "--no-privileges", ...only, "--format=custom", "--file=-"];
  const program = await startProgram(programs, "pg_restore", args, undefined, signal);
  const feeding = feed(program, dump);
  let isTaken = false;
  try {
    for await (const chunk of program.stdout) yield chunk as Uint8Array;
    await program.succeeded();
    isTaken = true;
  } catch (error) {
    // What the dump itself failed with says more than that the program reads no further.
    throw feeding.broken() ?? error;
  } finally {
    program.kill();
    if (!isTaken) feeding.stop();
  }
  await feeding.fed;
  if (feeding.broken() !== undefined) throw feeding.broken();
}

/**
 * The program ends once it has what it needs. What is left then is read all the same: that a dump is whole shows at its end. Nobody waits for the
 * rest of what a program does not take.
 */
function feed(program: RunningProgram, dump: Bytes) {
  const { stdin, ended } = program;
  const source = dump[Symbol.asyncIterator]();
  let broken: unknown;
  let isStopped = false;
  const feeding = async () => {
    for (let next = await source.next(); !next.done; next = await source.next()) {
      if (stdin.writable && !stdin.write(next.value)) await drained(stdin);
      if (isStopped || (!stdin.writable && (await ended) !== 0)) break;
    }
    stdin.end();
    await source.return?.();
  };
  const fed = feeding().catch((error: unknown) => {
    broken = error;
    program.kill();
  });
  return { fed, broken: () => broken, stop: () => void (isStopped = true) };
}

async function drained(stream: Writable): Promise<void> {
  if (!stream.writable) return;
  await new Promise<void>((resolve) => {
    const events = ["drain", "error", "close"];
    const goOn = () => {
      for (const event of events) stream.off(event, goOn);
      resolve();
    };
    for (const event of events) stream.on(event, goOn);
  });
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

type RunningProgram = Awaited<ReturnType<typeof startProgram>>;

/** Runs one of PostgreSQL's programs, whose libpq has no TLS. Ends with `signal`, or by `kill`. @throws UserError Environment */
export async function startProgram(
  programs: PgPrograms,
  name: string,
  args: string[],
  login: DatabaseLogin | undefined,
  signal: AbortSignal,
) {
  const relay = login && wantsTls(login) ? await startRelay(login) : undefined;
  const closeRelay = async () => relay?.close().catch(() => {});
  const start = () =>
    spawn(join(programs.binDir, name), args, {
      env: { ...programs.environment, ...(login ? loginEnvironment(login, relay?.directory) : {}) },
      stdio: "pipe",
      signal,
    });
  let child: ReturnType<typeof start>;
  try {
    child = start();
  } catch (error) {
    // Such as a password that no environment can have.
    await closeRelay();
    throw error;
  }
  let words = "";
  child.stderr.on("data", (chunk: Buffer) => (words = `${words}${chunk.toString("utf8")}`.slice(-WORDS_KEPT)));
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", (error) => {
      child.stdout.destroy();
      void closeRelay();
      reject(
        signal.aborted
          ? error
          : new UserError("Environment", `${name} cannot be run: ${machineProblem(error) ?? messageOf(error)}`),
      );
    });
    // Nothing of it is left when it has ended.
    child.once("close", (code) => void closeRelay().finally(() => resolve(code ?? -1)));
  });
  // Asked about only after its output.
  ended.catch(() => {});
  child.stdin.on("error", () => {});
  return {
    stdin: child.stdin,
    stdout: child.stdout,
    ended,
    /** The last of what it said on stderr. */
    words: () => words,
    kill: () => void child.kill("SIGKILL"),
    succeeded: async (): Promise<void> => {
      await finished(child.stderr, { error: false }).catch(() => {});
      const code = await ended;
      signal.throwIfAborted();
      const problem = relay?.problem();
      if (code !== 0 && problem) throw new UserError(problem.code, `${name} failed: ${problem.message}`);
      if (code !== 0) throw problemOf(name, words, code);
    },
  };
}

/** At a socket there is none, whatever `sslmode` says: as with libpq. */
function wantsTls({ host, sslMode = "disable" }: Login): boolean {
  return sslMode !== "disable" && !host.startsWith("/");
}

function loginEnvironment(login: DatabaseLogin, relayed: string | undefined): Record<string, string> {
  return {
    PGHOST: relayed ?? login.host,
    PGPORT: String(login.port),
    PGUSER: login.user,
    PGPASSWORD: login.password,
    PGDATABASE: login.database,
    PGSSLMODE: "disable",
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
