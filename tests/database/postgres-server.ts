import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, chown, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { type AdminLogin, withConnection } from "../../src/database/connection.ts";

const run = promisify(execFile);
const CACHE = process.env.SYNAPSE_SHARDS_CACHE ?? "/var/cache/synapse-shards";
const EMBEDDED = join(CACHE, "postgres/lib/python3.11/site-packages/embedded_postgres/pginstall/bin");

export interface TestServer {
  admin: AdminLogin;
  /** All that the server has logged; every statement is. */
  log(): Promise<string>;
  stop(): Promise<void>;
}

/** A PostgreSQL server of its own, which logs every statement and is gone after `stop`. */
export async function startPostgres(): Promise<TestServer> {
  const bin = existsSync(EMBEDDED) ? EMBEDDED : (process.env.POSTGRES_BIN ?? "/usr/lib/postgresql/15/bin");
  const directory = await mkdtemp(join(tmpdir(), "synapse-shards-pg-"));
  const [data, logFile, passwordFile] = [join(directory, "data"), join(directory, "log"), join(directory, "password")];
  const password = randomBytes(12).toString("hex");
  await writeFile(passwordFile, password, { mode: 0o600 });
  // PostgreSQL refuses to run as root.
  const user = process.getuid?.() === 0 ? await idsOf("postgres") : {};
  if (user.uid !== undefined) for (const path of [directory, passwordFile]) await chown(path, user.uid, user.gid ?? 0);
  await chmod(directory, 0o700);
  const auth = ["-A", "scram-sha-256", "-U", "admin", `--pwfile=${passwordFile}`];
  await run(join(bin, "initdb"), ["-D", data, "-E", "UTF8", "--no-locale", "-N", ...auth], { ...user, cwd: directory });
  const port = await freePort();
  const settings = ["fsync=off", "log_statement=all", "unix_socket_directories=", "listen_addresses=127.0.0.1"];
  const child = spawn(
    "/bin/sh",
    [
      "-c",
      'exec "$0" "$@" >>log 2>&1',
      join(bin, "postgres"),
      "-D",
      data,
      "-p",
      String(port),
      ...settings.flatMap((s) => ["-c", s]),
    ],
    { ...user, cwd: directory, stdio: "ignore" },
  );
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const stop = async () => {
    child.kill("SIGQUIT");
    await exited;
    await rm(directory, { recursive: true, force: true });
  };
  const admin = { host: "127.0.0.1", port, user: "admin", password };
  try {
    await untilItAnswers(admin);
  } catch (error) {
    const said = await readFile(logFile, "utf8").catch(() => "");
    await stop();
    throw new Error(`PostgreSQL did not start: ${said}`, { cause: error });
  }
  return { admin, log: () => readFile(logFile, "utf8"), stop };
}

async function untilItAnswers(admin: AdminLogin): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await withConnection(admin, "postgres", async () => {});
    } catch (error) {
      if (attempt === 150) throw error;
      await sleep(200);
    }
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

async function idsOf(user: string): Promise<{ uid?: number; gid?: number }> {
  const [uid, gid] = await Promise.all(
    ["-u", "-g"].map(async (flag) => Number((await run("id", [flag, user])).stdout)),
  );
  return { uid, gid };
}
