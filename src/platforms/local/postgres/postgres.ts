import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { messageOf, UserError } from "../../../model/errors.ts";
import { systemEnvironment } from "../environment.ts";
import { rotateAtStart } from "../files.ts";
import { freePort, isFree } from "../up/ports.ts";
import { isPostmaster, runningServer, serverEnded, stopServer } from "./postgres-process.ts";
import { chooseUser, identityOf, placeForData, type RunAs } from "./postgres-user.ts";
import { runCommand } from "../toolchain/run-command.ts";

const HOST = "127.0.0.1";
const ADMIN = "postgres";
/** Our settings; postgresql.conf includes them, and an operator's own after them. */
const SETTINGS_FILE = "synapse-shards.conf";
const OPERATOR_FILE = "local.conf";
/** Recovery after a power cut reads at most max_wal_size of log. */
const READY_MS = 300_000;
const START_ATTEMPTS = 10;

/**
 * For many small databases: connections are opened on use, closed when idle, and 500 are enough for the busiest moment of
 * 125 tenants. Autovacuum visits every database once per naptime, so a short one would keep a core busy with idle tenants.
 * After a crash, one call flushes the file system; opening the 300 files of each database one by one would take minutes.
 * Statements are not logged with errors: CREATE ROLE has a password in it.
 * wal_level: a database is copied to another server while its tenant runs (src/database/online/).
 */
const SETTINGS = `
listen_addresses = '${HOST}'
unix_socket_directories = ''
max_connections = 500
shared_buffers = 128MB
jit = off
autovacuum_naptime = 5min
recovery_init_sync_method = syncfs
password_encryption = scram-sha-256
wal_level = logical
log_line_prefix = '%m [%p] %d '
log_min_error_statement = panic
log_statement = none
`;

export interface PostgresOptions {
  /** Where the data goes, unless its user cannot get there (see `placeForData`). */
  dataDir: string;
  binDir: string;
  /** Any free one, chosen once, if none is given. */
  port?: number;
  logFile: string;
  /** Holds the administrator's password; made with the data. Default: `<dataDir>.password`. */
  passwordFile?: string;
  onProgress?: (step: string) => void;
  signal?: AbortSignal;
}

export interface RunningPostgres {
  host: string;
  port: number;
  pid: number;
  adminUser: string;
  adminPassword: string;
  passwordFile: string;
  /** Where the data really is. */
  dataDir: string;
  /** It ran already, left by an earlier cluster process. */
  adopted: boolean;
  /** Resolves when the server has ended for whatever reason. */
  ended: Promise<void>;
  /** Ends it in order; bounded. */
  stop(onProgress?: (step: string) => void): Promise<void>;
}

/** Starts PostgreSQL on a data directory, made at the first time, or finds it running there. @throws UserError Environment */
export async function startPostgres(options: PostgresOptions): Promise<RunningPostgres> {
  const { signal, onProgress = () => {}, passwordFile = `${options.dataDir}.password` } = options;
  const user = chooseUser(options.dataDir);
  const place = placeForData(options.dataDir, user, onProgress);
  if (!existsSync(join(place, "PG_VERSION"))) {
    await initialise({ ...options, dataDir: place, passwordFile, onProgress }, user);
  }
  const dataDir = realpathSync(place);
  const adminPassword = readPassword(passwordFile, dataDir);

  const found = await runningServer(dataDir);
  let server =
    found && (await untilReady({ ...found, dataDir, adminPassword, logFile: options.logFile, signal }))
      ? found
      : undefined;
  const adopted = server !== undefined;
  for (let attempt = 1; server === undefined; attempt++) {
    const port = await choosePort(dataDir, options.port, attempt);
    writeSettings(dataDir, port, user);
    const pid = launch(options, dataDir, user);
    try {
      if (await untilReady({ pid, port, dataDir, adminPassword, logFile: options.logFile, signal }))
        server = { pid, port };
    } catch (error) {
      await stopServer(pid, dataDir, onProgress);
      throw error;
    }
    if (!server) await failedStart(options.logFile, attempt, signal);
  }
  const { pid, port } = server;
  return {
    host: HOST,
    port,
    pid,
    adminUser: ADMIN,
    adminPassword,
    passwordFile,
    dataDir,
    adopted,
    ended: serverEnded(pid, dataDir),
    stop: (report = onProgress) => stopServer(pid, dataDir, report),
  };
}

async function initialise(
  options: PostgresOptions & { passwordFile: string; onProgress: (step: string) => void },
  user: RunAs | undefined,
): Promise<void> {
  const { dataDir, binDir, passwordFile, signal, onProgress } = options;
  onProgress("making the database cluster");
  const password = existsSync(passwordFile)
    ? readFileSync(passwordFile, "utf8").trim()
    : randomBytes(32).toString("base64url");
  writeFileSync(passwordFile, password, { mode: 0o600 });
  // Made under another name first: a directory of the right name is complete.
  const draft = `${dataDir}.new`;
  const draftPassword = `${dataDir}.new.password`;
  rmSync(draft, { recursive: true, force: true });
  mkdirSync(draft, { mode: 0o700, recursive: true });
  writeFileSync(draftPassword, password, { mode: 0o600 });
  for (const path of [draft, draftPassword]) if (user) chownSync(path, user.uid, user.gid);
  const args = [
    "--pgdata",
    draft,
    "--username",
    ADMIN,
    "--pwfile",
    draftPassword,
    "--auth",
    "scram-sha-256",
    "--encoding",
    "UTF8",
    "--locale",
    "C",
  ];
  try {
    const { code, lines } = await runCommand(join(binDir, "initdb"), args, {
      ...identityOf(user),
      cwd: draft,
      env: serverEnvironment(),
      signal,
    });
    if (code !== 0)
      throw new UserError(
        "Environment",
        `PostgreSQL's initdb failed: ${lines.findLast((line) => line.includes("error")) ?? lines.at(-1) ?? `exit code ${code}`}`,
      );
  } catch (error) {
    signal?.throwIfAborted();
    if ((error as NodeJS.ErrnoException).code !== "EACCES") throw error;
    throw new UserError(
      "Environment",
      `the user ${user?.name} cannot run ${binDir}/initdb: set SYNAPSE_SHARDS_CACHE to a directory that every user can read`,
    );
  } finally {
    rmSync(draftPassword, { force: true });
  }
  appendFileSync(
    join(draft, "postgresql.conf"),
    `\ninclude = '${SETTINGS_FILE}'\ninclude_if_exists = '${OPERATOR_FILE}'\n`,
  );
  rmSync(dataDir, { recursive: true, force: true });
  renameSync(draft, dataDir);
}

function readPassword(file: string, dataDir: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch (error) {
    throw new UserError(
      "Environment",
      `the password of the databases in ${dataDir} cannot be read: ${messageOf(error)}`,
    );
  }
}

/** The port stays the same over restarts: tenants that run on through one know no other. */
async function choosePort(dataDir: string, wished: number | undefined, attempt: number): Promise<number> {
  if (wished) {
    if (await isFree(HOST, wished)) return wished;
    throw new UserError("Environment", `port ${wished}, wanted for PostgreSQL, is in use`);
  }
  const settings = join(dataDir, SETTINGS_FILE);
  const last = existsSync(settings) ? Number(readFileSync(settings, "utf8").match(/^port = (\d+)$/m)?.[1]) : 0;
  return attempt === 1 && last && (await isFree(HOST, last)) ? last : freePort(HOST);
}

function writeSettings(dataDir: string, port: number, user: RunAs | undefined): void {
  const file = join(dataDir, SETTINGS_FILE);
  writeFileSync(
    file,
    `# Written at each start. Your own settings go into ${OPERATOR_FILE}.\nport = ${port}${SETTINGS}`,
    { mode: 0o600 },
  );
  chmodSync(file, 0o600);
  if (user) chownSync(file, user.uid, user.gid);
}

/** In a session of its own: a Ctrl-C in the terminal is for us, who stop it last. */
function launch({ binDir, logFile }: PostgresOptions, dataDir: string, user: RunAs | undefined): number {
  rotateAtStart(logFile);
  const log = openSync(logFile, "a", 0o600);
  try {
    const child = spawn(join(binDir, "postgres"), ["-D", dataDir], {
      ...identityOf(user),
      cwd: dataDir,
      detached: true,
      stdio: ["ignore", log, log],
      env: serverEnvironment(),
    });
    child.on("error", () => {}); // seen as a process that has ended
    child.unref();
    if (child.pid === undefined) throw new UserError("Environment", `cannot start ${binDir}/postgres`);
    return child.pid;
  } finally {
    closeSync(log);
  }
}

/** @returns false when the process has ended; @throws UserError when it runs and does not let us in */
async function untilReady(server: {
  pid: number;
  port: number;
  dataDir: string;
  adminPassword: string;
  logFile: string;
  signal?: AbortSignal;
}): Promise<boolean> {
  const deadline = Date.now() + READY_MS;
  for (let last: unknown; ; await sleep(50, undefined, { signal: server.signal })) {
    if (!(await isPostmaster(server.pid, server.dataDir))) return false;
    const client = new Client({
      host: HOST,
      port: server.port,
      user: ADMIN,
      password: server.adminPassword,
      database: "postgres",
      connectionTimeoutMillis: 10_000,
    });
    client.on("error", () => {}); // the query shows it
    try {
      await client.connect();
      await client.query("SELECT 1");
      return true;
    } catch (error) {
      last = error;
      // 28: the login is refused, which waiting does not fix.
      if (String((error as { code?: unknown }).code).startsWith("28")) break;
    } finally {
      await client.end().catch(() => {});
    }
    if (Date.now() < deadline) continue;
    throw new UserError(
      "Environment",
      `PostgreSQL runs (process ${server.pid}) and does not answer on port ${server.port}: ${messageOf(last)}; see ${server.logFile}`,
    );
  }
  throw new UserError(
    "Environment",
    `PostgreSQL in ${server.dataDir} refuses the administrator's password; it is not the one the data was made with`,
  );
}

/** A port that was taken meanwhile, or processes of a killed server that still end, are worth another try. */
async function failedStart(logFile: string, attempt: number, signal: AbortSignal | undefined): Promise<void> {
  const lines = readFileSync(logFile, "utf8").trimEnd().split("\n");
  const passing = lines.some((line) =>
    /Address already in use|shared memory block .* is still in use|could not create lock file|lock file .* already exists/.test(
      line,
    ),
  );
  if (!passing || attempt >= START_ATTEMPTS) {
    const words = lines.findLast((line) => /FATAL|PANIC/.test(line)) ?? lines.at(-1) ?? "";
    throw new UserError(
      "Environment",
      `PostgreSQL did not start: ${words.replace(/^.*?(FATAL|PANIC)/, "$1")}; see ${logFile}`,
    );
  }
  await sleep(300 * attempt, undefined, { signal });
}

function serverEnvironment(): Record<string, string> {
  return { ...systemEnvironment(), LC_ALL: "C", TZ: "UTC" };
}
