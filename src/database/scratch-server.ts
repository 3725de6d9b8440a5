import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chown, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, UserError } from "../model/errors.ts";
import { machineProblem } from "../model/machine-problem.ts";
import { asAdmin, DEFAULT_BOUNDS, type AdminLogin } from "./connection.ts";
import type { PgPrograms } from "./pg-programs.ts";

const ADMIN = "scratch";
const PORT = 5432;
const READY_MS = 60_000;
const POLL_MS = 100;
const LOOK_MS = 1_000;
const WORDS_KEPT = 4_096;
const MIB = 1024 ** 2;
/** Restoring 100 GiB takes less. While it runs, nobody else's backup is verified. */
const LONGEST_MS = 3 * 3_600_000;
/**
 * Of addresses, for each process. What is restored runs SQL of whoever owns it: expressions of indexes, conditions of tables. An allocation that is too
 * large fails there, and takes no memory from whoever runs beside.
 */
const MOST_MEMORY = 512 * MIB;
/** The largest sort is that of an index, which is a part of the database. */
const SORTS_PART = 4;

/** Nothing in it has to survive anything, and one session uses it. Its log of changes takes 128 MiB at most. */
const SETTINGS = {
  listen_addresses: "",
  max_connections: "10",
  shared_buffers: "32MB",
  maintenance_work_mem: "32MB",
  max_worker_processes: "0",
  fsync: "off",
  full_page_writes: "off",
  autovacuum: "off",
  wal_level: "minimal",
  max_wal_senders: "0",
  max_wal_size: "128MB",
  jit: "off",
};

export interface ScratchOptions {
  programs: PgPrograms;
  /** Nobody else's; what is in it is removed. */
  directory: string;
  /** Of all databases together, and of the files that sorting takes. */
  mostBytes: number;
  /** For one work. */
  longestMs?: number;
  /** Whom it runs as, where we are root, as which it refuses to run. */
  runAs?: { uid: number; gid: number };
}

/** A PostgreSQL of our own for as long as something is tried in it, at a socket in its directory. One at a time. */
export class ScratchServer {
  readonly #options: ScratchOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: ScratchOptions) {
    this.#options = options;
  }

  /** @param work is ended by its signal where it takes more space or time than there is @throws UserError Environment */
  use<T>(signal: AbortSignal, work: (admin: AdminLogin, signal: AbortSignal) => Promise<T>): Promise<T> {
    const mine = this.#last.then(() => this.#use(signal, work));
    this.#last = mine.catch(() => {});
    return mine;
  }

  async #use<T>(signal: AbortSignal, work: (admin: AdminLogin, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { directory, runAs } = this.#options;
    signal.throwIfAborted();
    await clear(directory);
    try {
      await mkdir(join(directory, "socket"), { recursive: true, mode: 0o700 });
      const password = randomBytes(32).toString("base64url");
      await writeFile(join(directory, "password"), password, { mode: 0o600 });
      if (runAs)
        for (const name of ["", "socket", "password"]) await chown(join(directory, name), runAs.uid, runAs.gid);
      await this.#initialise(signal);
      return await this.#run({ host: join(directory, "socket"), port: PORT, user: ADMIN, password }, signal, work);
    } finally {
      await clear(directory);
    }
  }

  async #initialise(signal: AbortSignal): Promise<void> {
    const { directory } = this.#options;
    const args = ["--auth=scram-sha-256", `--pwfile=${join(directory, "password")}`, "--no-sync", "--locale=C"];
    const initdb = this.#spawn("initdb", [...args, "--encoding=UTF8", `--username=${ADMIN}`]);
    signal.addEventListener("abort", () => initdb.kill(), { once: true });
    const code = await initdb.ended;
    signal.throwIfAborted();
    if (code !== 0) throw new UserError("Environment", `initdb failed: ${initdb.words() || `it ended with ${code}`}`);
  }

  async #run<T>(
    admin: AdminLogin,
    signal: AbortSignal,
    work: (admin: AdminLogin, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { directory, mostBytes, longestMs = LONGEST_MS } = this.#options;
    const sorts = `${Math.floor(mostBytes / SORTS_PART / 1024)}kB`;
    const settings = { ...SETTINGS, temp_file_limit: sorts, unix_socket_directories: join(directory, "socket") };
    const server = this.#spawn(
      "postgres",
      Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    );
    const full = new AbortController();
    const late = AbortSignal.timeout(longestMs);
    const over = new AbortController();
    try {
      await untilReady(admin, server, signal);
      const watched = watchSize(admin, mostBytes, over.signal).then((isFull) => isFull && full.abort());
      try {
        return await work(admin, AbortSignal.any([signal, full.signal, late]));
      } catch (error) {
        if (signal.aborted || !(full.signal.aborted || late.aborted)) throw error;
        if (!full.signal.aborted)
          throw new UserError(
            "Environment",
            `the database is not restored within the ${Math.round(longestMs / 60_000)} minutes that there are for it`,
            { cause: error },
          );
        throw new UserError(
          "Environment",
          `the restored database takes more than the ${Math.round(mostBytes / MIB)} MiB that there are for it`,
          { cause: error },
        );
      } finally {
        over.abort();
        await watched;
      }
    } finally {
      server.kill();
      await server.ended.catch(() => {});
    }
  }

  #spawn(name: string, args: string[]) {
    const { programs, directory, runAs = {} } = this.#options;
    const bounded = ["-c", 'ulimit -v "$0" && exec "$@"', String(MOST_MEMORY / 1024), join(programs.binDir, name)];
    const child = spawn("/bin/sh", [...bounded, ...args], {
      // Its locale would be the machine's.
      env: { ...programs.environment, PGDATA: join(directory, "data"), LC_ALL: "C" },
      cwd: directory,
      stdio: ["ignore", "ignore", "pipe"],
      ...runAs,
    });
    let words = "";
    child.stderr.on("data", (chunk: Buffer) => (words = `${words}${chunk.toString("utf8")}`.slice(-WORDS_KEPT)));
    const ended = new Promise<number>((resolve, reject) => {
      child.once("error", (error) =>
        reject(new UserError("Environment", `${name} cannot be run: ${machineProblem(error) ?? messageOf(error)}`)),
      );
      child.once("close", (code) => resolve(code ?? -1));
    });
    ended.catch(() => {});
    return {
      ended,
      words: () => words.trim().split("\n").at(-1) ?? "",
      // At once: nothing of it is kept.
      kill: () => void child.kill(name === "postgres" ? "SIGQUIT" : "SIGKILL"),
    };
  }
}

async function untilReady(
  admin: AdminLogin,
  server: { ended: Promise<number>; words(): string },
  signal: AbortSignal,
): Promise<void> {
  let hasEnded = false;
  server.ended.then(
    () => (hasEnded = true),
    () => (hasEnded = true),
  );
  for (const deadline = performance.now() + READY_MS; ; await sleep(POLL_MS, undefined, { signal })) {
    try {
      await asAdmin(admin, DEFAULT_BOUNDS, (client) => client.query("SELECT"));
      return;
    } catch (error) {
      if (!hasEnded && performance.now() < deadline) continue;
      throw new UserError("Environment", `the scratch server does not start: ${server.words() || messageOf(error)}`, {
        cause: error,
      });
    }
  }
}

/** @returns whether it was too large before it was over */
async function watchSize(admin: AdminLogin, mostBytes: number, over: AbortSignal): Promise<boolean> {
  for (;;) {
    await sleep(LOOK_MS, undefined, { signal: over }).catch(() => {});
    if (over.aborted) return false;
    const sql = `SELECT ((SELECT sum(pg_database_size(oid)) FROM pg_database) +
      (SELECT coalesce(sum(size), 0) FROM pg_ls_tmpdir()))::text AS bytes`;
    const bytes = await asAdmin(admin, DEFAULT_BOUNDS, async (client) => {
      const { rows } = await client.query<{ bytes: string }>(sql);
      return Number(rows[0]?.bytes);
    }).catch(() => 0);
    if (bytes > mostBytes) return true;
  }
}

/** The directory itself may be a volume's, which stays. */
async function clear(directory: string): Promise<void> {
  for (const name of ["data", "socket", "password"]) await rm(join(directory, name), { recursive: true, force: true });
}
