import { spawn, type ChildProcess } from "node:child_process";
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { asAdmin, DEFAULT_BOUNDS, identifier, withConnection, type Login } from "../../../database/connection.ts";
import { othersDatabases, tenantDatabaseName } from "../../../database/names.ts";
import { mebibytes } from "../../../model/bytes.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import { machineProblem } from "../../../model/machine-problem.ts";
import type { DatabaseLogin } from "../../../ports/databases.ts";
import type { Recoveries, RecoverySource } from "../../../ports/point-in-time.ts";
import { systemEnvironment } from "../environment.ts";
import { POSTGRES_MAJOR } from "../toolchain/toolchain.ts";
import { LogFeed } from "./log-feed.ts";
import { runningServer, stopServer } from "./postgres-process.ts";
import { chooseUser, identityOf, type RunAs } from "./postgres-user.ts";

const ADMIN = "postgres";
const PORT = 5432;
const POLL_MS = 100;
/** What recovery writes besides databases: its own log up to a checkpoint, and segments that were fetched. */
const SPACE_BESIDES = 1024 ** 3;
const TAR_WORDS_KEPT = 4_096;

interface Work {
  say(message: string): void;
  signal: AbortSignal;
}

/** A second PostgreSQL on a socket of its own, beside the data of the one in use. */
export class LocalRecoveries implements Recoveries {
  readonly #postgres: string;
  readonly #binDir: string;

  /** @param postgres where the data of the server in use really is */
  constructor(postgres: string, binDir: string) {
    this.#postgres = postgres;
    this.#binDir = binDir;
  }

  get #place(): string {
    return `${this.#postgres}.recovery`;
  }

  async clean(): Promise<void> {
    const data = join(this.#place, "data");
    const left = await runningServer(data);
    if (left) await stopServer(left.pid, data, () => {});
    await rm(this.#place, { recursive: true, force: true });
  }

  async recover<T>(
    source: RecoverySource,
    { at, tenant }: { at: number; tenant: string },
    use: (login: DatabaseLogin) => Promise<T>,
    work: Work,
  ): Promise<T> {
    const { base } = source;
    if (base.postgresMajor !== POSTGRES_MAJOR)
      throw new UserError(
        "Environment",
        `the base ${base.id} is of PostgreSQL ${base.postgresMajor}, and here is ${POSTGRES_MAJOR}`,
      );
    // Most of the copy, and none of it is asked for.
    const others = othersDatabases(base.databases, tenant);
    for (;;) {
      const found = await this.#recover(source, at, others, work, async (login) => {
        const database = tenantDatabaseName(tenant);
        const oid = (await databasesOf(login)).get(database);
        if (oid === undefined)
          throw new UserError(
            "NotFound",
            `${tenant} had no database on the cluster's own server at ${new Date(at).toISOString()}`,
          );
        // It was another tenant's when the copy was made, and renamed since: what there is of it is not whole.
        if (others.delete(oid)) return undefined;
        await letIn(login, database);
        return { result: await use({ ...login, user: database, database }) };
      });
      if (found) return found.result;
      work.say("the database had another name when the base was made; once more, with it");
    }
  }

  async #recover<T>(
    source: RecoverySource,
    at: number,
    without: ReadonlySet<number>,
    work: Work,
    use: (login: Login) => Promise<T>,
  ): Promise<T> {
    await this.clean();
    this.#refuseWithoutSpace(source, without);
    const user = chooseUser(this.#postgres);
    const sockets = await mkdtemp(join(tmpdir(), "synapse-shards-pg-"));
    try {
      if (user) chownSync(sockets, user.uid, user.gid);
      for (const path of [this.#place, join(this.#place, "data"), join(this.#place, "log")]) {
        mkdirSync(path, { mode: 0o700 });
        if (user) chownSync(path, user.uid, user.gid);
      }
      await this.#unpack(source, without, user, work);
      this.#configure(at, sockets, user);
      return await this.#run(source, sockets, user, use, work);
    } catch (error) {
      const problem = error instanceof UserError ? undefined : machineProblem(error);
      throw problem === undefined ? error : new UserError("Unavailable", problem, { cause: error });
    } finally {
      await this.clean();
      await rm(sockets, { recursive: true, force: true });
    }
  }

  #refuseWithoutSpace({ base }: RecoverySource, without: ReadonlySet<number>): void {
    const { bavail, bsize } = statfsSync(dirname(this.#place));
    const needed = base.databases.reduce(
      (sum, { oid, bytes }) => (without.has(oid) ? sum : sum + bytes),
      SPACE_BESIDES,
    );
    if (bavail * bsize >= needed) return;
    throw new UserError(
      "Unavailable",
      `the disk of ${dirname(this.#place)} has ${mebibytes(bavail * bsize)} left, and ${mebibytes(needed)} are needed to recover aside: free some`,
    );
  }

  async #unpack(source: RecoverySource, without: ReadonlySet<number>, user: RunAs | undefined, { signal }: Work) {
    const list = join(this.#place, "left-out");
    this.#write("left-out", [...without].map((oid) => `base/${oid}\n`).join(""), user);
    // To the end of what comes, where its hash is compared.
    const args = ["--extract", "--file=-", "--ignore-zeros", `--directory=${join(this.#place, "data")}`];
    const tar = spawn("tar", [...args, "--anchored", `--exclude-from=${list}`], {
      ...identityOf(user),
      cwd: "/",
      env: systemEnvironment(),
      stdio: ["pipe", "ignore", "pipe"],
      signal,
    });
    let words = "";
    tar.stderr.on("data", (chunk: Buffer) => (words = `${words}${chunk.toString("utf8")}`.slice(-TAR_WORDS_KEPT)));
    const ended = exitOf(tar);
    ended.catch(() => {});
    let broken: unknown;
    const content = Readable.from(source.tar(), { objectMode: false });
    content.on("error", (error: NodeJS.ErrnoException) => {
      // Where tar ends early, it says why.
      if (error.code !== "ERR_STREAM_PREMATURE_CLOSE" && error.code !== "EPIPE") broken = error;
    });
    await pipeline(content, tar.stdin).catch(() => {
      if (broken !== undefined) tar.kill("SIGKILL");
    });
    const code = await ended;
    signal.throwIfAborted();
    if (broken !== undefined) throw broken;
    if (code === 0) return;
    const said = words.trim().split("\n")[0] ?? "";
    const isFull = /No space left/.test(words);
    throw new UserError(
      isFull ? "Unavailable" : "InvalidInput",
      `the base ${source.base.id} cannot be unpacked: ${said}`,
    );
  }

  /** All of its settings are ours: the base has those of the server in use. */
  #configure(at: number, sockets: string, user: RunAs | undefined): void {
    const files: Record<string, string> = {
      "data/postgresql.conf": settings(at, sockets),
      "data/postgresql.auto.conf": "",
      // Nobody else gets to the socket.
      "data/pg_hba.conf": `local all all trust\n`,
      "data/recovery.signal": "",
      "fetch.sh": FETCH,
    };
    for (const [name, text] of Object.entries(files)) this.#write(name, text, user);
  }

  #write(name: string, text: string, user: RunAs | undefined): void {
    const file = join(this.#place, name);
    writeFileSync(file, text, { mode: 0o600 });
    if (user) chownSync(file, user.uid, user.gid);
  }

  async #run<T>(
    source: RecoverySource,
    sockets: string,
    user: RunAs | undefined,
    use: (login: Login) => Promise<T>,
    { say, signal }: Work,
  ): Promise<T> {
    const data = join(this.#place, "data");
    const logFile = join(this.#place, "postgres.log");
    const log = openSync(logFile, "a", 0o600);
    const server = spawn(join(this.#binDir, "postgres"), ["-D", data], {
      ...identityOf(user),
      cwd: data,
      stdio: ["ignore", log, log],
      env: { ...systemEnvironment(), LC_ALL: "C", TZ: "UTC" },
    });
    closeSync(log);
    const ended = exitOf(server);
    ended.catch(() => {});
    const feed = new LogFeed(join(this.#place, "log"), source, user);
    try {
      const fed = feed.run(
        (count) => say(`the log is read: ${count} segments since ${source.base.finishedAt}`),
        signal,
      );
      fed.catch(() => {});
      const login = { host: sockets, port: PORT, user: ADMIN, password: "" };
      await Promise.race([
        fed,
        ended.then(() => {
          throw whyEnded(readFileSync(logFile, "utf8"));
        }),
        untilRecovered(login, signal),
      ]);
      return await use(login);
    } finally {
      feed.end();
      await stop(server, ended);
    }
  }
}

/** Nothing of it has to survive. */
function settings(at: number, sockets: string): string {
  return `listen_addresses = ''
unix_socket_directories = '${sockets.replaceAll("'", "''")}'
port = ${PORT}
hot_standby = off
max_connections = 20
shared_buffers = 64MB
fsync = off
full_page_writes = off
max_wal_size = 256MB
autovacuum = off
jit = off
restore_command = 'sh ../fetch.sh "%f" "%p"'
recovery_target_time = '${new Date(at).toISOString().replace("T", " ").replace("Z", "+00")}'
recovery_target_action = promote
`;
}

/** Asks for a file of the log, and waits until it is there, or is known not to be (log-feed.ts). */
const FETCH = `: > "../log/$1.wanted" || exit 1
while [ ! -e "../log/$1.given" ]; do
  [ -e "../log/$1.none" ] && exit 1
  sleep 0.02
done
exec mv "../log/$1.given" "$2"
`;

function whyEnded(log: string): UserError {
  const last = /last completed transaction was at log time (\S+ \S+)/.exec(log)?.[1];
  if (/recovery ended before configured recovery target was reached/.test(log))
    return new UserError(
      "InvalidInput",
      `the log ends before that time${last === undefined ? "" : `: what was written last is of ${last} UTC`}`,
    );
  const words = log.split("\n").findLast((line) => /FATAL|PANIC/.test(line)) ?? log.trim().split("\n").at(-1) ?? "";
  const why = words.replace(/^.*?(FATAL|PANIC): +/, "");
  const isFull = /No space left/.test(log);
  return new UserError(isFull ? "Unavailable" : "Environment", `the recovery aside failed: ${why}`);
}

async function untilRecovered(login: Login, signal: AbortSignal): Promise<void> {
  for (; ; await sleep(POLL_MS, undefined, { signal })) {
    if (!existsSync(join(login.host, `.s.PGSQL.${PORT}`))) continue;
    try {
      await withConnection(login, ADMIN, (client) => client.query("SELECT 1"));
      return;
    } catch {
      // It reads the log still; whether it ended is seen by its process.
    }
  }
}

async function databasesOf(login: Login): Promise<Map<string, number>> {
  return asAdmin(login, DEFAULT_BOUNDS, async (client) => {
    const { rows } = await client.query<{ name: string; oid: string }>(
      "SELECT datname AS name, oid::text AS oid FROM pg_database",
    );
    return new Map(rows.map(({ name, oid }) => [name, Number(oid)]));
  });
}

/** Whatever was asked of the role at that moment. Nobody else is here, whom its bounds could protect. */
async function letIn(login: Login, role: string): Promise<void> {
  await asAdmin(login, DEFAULT_BOUNDS, async (client) => {
    await client.query(`ALTER ROLE ${identifier(role)} WITH LOGIN CONNECTION LIMIT -1`);
    await client.query(`ALTER ROLE ${identifier(role)} RESET ALL`);
    await client.query(`ALTER DATABASE ${identifier(role)} WITH ALLOW_CONNECTIONS true`);
  });
}

/** What it has written is thrown away. */
async function stop(server: ChildProcess, ended: Promise<number>): Promise<void> {
  server.kill("SIGQUIT");
  const hangs = setTimeout(() => server.kill("SIGKILL"), 10_000);
  await ended.catch(() => {});
  clearTimeout(hangs);
}

function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once("error", (error) =>
      reject(
        new UserError("Environment", `${child.spawnfile} cannot be run: ${machineProblem(error) ?? messageOf(error)}`),
      ),
    );
    child.once("close", (code) => resolve(code ?? -1));
  });
}
