import { readFileSync, statSync, lstatSync, mkdirSync, chmodSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { Client } from "pg";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { runningServer } from "../../../src/platforms/local/postgres/postgres-process.ts";
import { startPostgres, type RunningPostgres } from "../../../src/platforms/local/postgres/postgres.ts";
import { ensurePostgres } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { temporaryDirectory } from "./support.ts";

let binDir: string;
beforeAll(async () => {
  ({ binDir } = await ensurePostgres());
}, 300_000);

async function start(directory: string): Promise<RunningPostgres> {
  const server = await startPostgres({
    dataDir: join(directory, "postgres"),
    binDir,
    logFile: join(directory, "postgres.log"),
  });
  onTestFinished(() => server.stop());
  return server;
}

async function query(
  server: RunningPostgres,
  sql: string,
  password = server.adminPassword,
): Promise<Record<string, unknown>[]> {
  const client = new Client({
    host: server.host,
    port: server.port,
    user: server.adminUser,
    password,
    database: "postgres",
  });
  client.on("error", () => {});
  try {
    await client.connect();
    return (await client.query(sql)).rows;
  } finally {
    await client.end().catch(() => {});
  }
}

test("what was written is there after an orderly restart, on the same port", async () => {
  // Prevents: a restart that begins with empty data, or moves to a port that running tenants do not know.
  const directory = await temporaryDirectory();
  const first = await start(directory);
  await query(first, "CREATE TABLE kept (n int)");
  await query(first, "INSERT INTO kept VALUES (7)");
  await first.stop();
  await first.ended;
  expect(await runningServer(first.dataDir)).toBeUndefined();
  const second = await start(directory);
  expect(second).toMatchObject({ port: first.port, adopted: false });
  expect(second.pid).not.toBe(first.pid);
  expect(await query(second, "SELECT n FROM kept")).toEqual([{ n: 7 }]);
});

test("a server that was killed recovers with what it had acknowledged", async () => {
  // Prevents: a stale postmaster.pid, or backends of the killed server, keeping the next one from starting.
  const directory = await temporaryDirectory();
  const first = await start(directory);
  await query(first, "CREATE TABLE kept AS SELECT 42 AS n");
  process.kill(first.pid, "SIGKILL");
  const second = await start(directory);
  expect(second.adopted).toBe(false);
  expect(await query(second, "SELECT n FROM kept")).toEqual([{ n: 42 }]);
});

test("a server that runs on after its parent is adopted, not fought with", async () => {
  // Prevents: `up` after a kill -9 failing on the lock file of the PostgreSQL that still serves the shards.
  const directory = await temporaryDirectory();
  const first = await start(directory);
  const second = await start(directory);
  expect(second).toMatchObject({ adopted: true, pid: first.pid, port: first.port });
  await second.stop();
  await Promise.all([first.ended, second.ended]);
});

test("another port is taken when the last one is in use", async () => {
  // Prevents: a cluster that can never start because some program got its port in between.
  const directory = await temporaryDirectory();
  const first = await start(directory);
  await first.stop();
  const thief = createServer().listen(first.port, "127.0.0.1");
  onTestFinished(() => void thief.close());
  const second = await start(directory);
  expect(second.port).not.toBe(first.port);
});

test("nobody else gets in", async () => {
  // Prevents: trust authentication on loopback, or a password that other users of the machine can read.
  const directory = await temporaryDirectory();
  const server = await start(directory);
  await expect(query(server, "SELECT 1", "guess")).rejects.toMatchObject({ code: "28P01" });
  expect(statSync(server.passwordFile).mode & 0o077).toBe(0);
  expect(statSync(server.dataDir).mode & 0o077).toBe(0);
  expect(readFileSync(server.passwordFile, "utf8").length).toBeGreaterThan(40);
  const [listen] = await query(
    server,
    "SELECT current_setting('listen_addresses') AS a, current_setting('unix_socket_directories') AS u, current_setting('fsync') AS f",
  );
  expect(listen).toEqual({ a: "127.0.0.1", u: "", f: "on" });
});

test("passwords in statements that fail do not get into the log", async () => {
  // Prevents: CREATE ROLE … PASSWORD, run twice, writing the tenant's password into postgres.log.
  const directory = await temporaryDirectory();
  const server = await start(directory);
  await query(server, "CREATE ROLE tenant LOGIN PASSWORD 'very-secret'");
  await expect(query(server, "CREATE ROLE tenant LOGIN PASSWORD 'very-secret'")).rejects.toThrow("already exists");
  const log = readFileSync(join(directory, "postgres.log"), "utf8");
  expect(log).toContain("already exists");
  expect(log).not.toContain("very-secret");
});

test.runIf(process.getuid?.() === 0)("root's data goes where PostgreSQL's user can reach it", async () => {
  // Prevents: a checkout below /root that cannot start, and data that is lost from sight once permissions change.
  const directory = await temporaryDirectory();
  const closed = join(directory, "closed");
  mkdirSync(closed, { mode: 0o700 });
  const steps: string[] = [];
  const options = {
    dataDir: join(closed, "postgres"),
    binDir,
    logFile: join(directory, "postgres.log"),
    onProgress: (step: string) => steps.push(step),
  };
  const first = await startPostgres(options);
  onTestFinished(() => first.stop());
  onTestFinished(() => rm(dirname(first.dataDir), { recursive: true, force: true }));
  expect(first.dataDir.startsWith("/var/lib/synapse-shards/")).toBe(true);
  expect(lstatSync(options.dataDir).isSymbolicLink()).toBe(true);
  expect(steps.join("\n")).toContain(closed);
  await query(first, "CREATE TABLE kept AS SELECT 1 AS n");
  await first.stop();
  chmodSync(closed, 0o755);
  const second = await startPostgres(options);
  onTestFinished(() => second.stop());
  expect(await query(second, "SELECT n FROM kept")).toEqual([{ n: 1 }]);
});
