import { chmod, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterAll, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { DirectoryTarget } from "../../../src/backups/directory-target.ts";
import { LogArchiver } from "../../../src/controller/backups/log-archiver.ts";
import { fromMoment, reachOf } from "../../../src/controller/backups/restore-to-time.ts";
import type { ControllerContext } from "../../../src/controller/context.ts";
import { createControllerMetrics } from "../../../src/controller/metrics.ts";
import { withConnection, type AdminLogin } from "../../../src/database/connection.ts";
import { PostgresServerLog } from "../../../src/database/server-log.ts";
import { SteadyClock } from "../../../src/model/clock.ts";
import { UserError } from "../../../src/model/errors.ts";
import { PointInTimeSchema } from "../../../src/model/point-in-time.ts";
import { systemEnvironment } from "../../../src/platforms/local/environment.ts";
import { runningServer } from "../../../src/platforms/local/postgres/postgres-process.ts";
import { startPostgres, type RunningPostgres } from "../../../src/platforms/local/postgres/postgres.ts";
import { LocalRecoveries } from "../../../src/platforms/local/postgres/recovery.ts";
import { ensurePostgres } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

vi.setConfig({ testTimeout: 3 * PATIENCE_MS, hookTimeout: 3 * PATIENCE_MS });

let directory: string;
let place: string;
let server: RunningPostgres;
let admin: AdminLogin;
let log: PostgresServerLog;
let recoveries: LocalRecoveries;
let binDir: string;
let archiver: LogArchiver;
let events: string[];
let onUmask = () => {};
/** As little as eight segments, which is less than anybody may ask for. */
const config = { ...PointInTimeSchema.parse({}), maxWaitingMiB: 128 };
let isKept = true;
const clock = new SteadyClock();
const metrics = createControllerMetrics(new Registry());
const context = {
  clock,
  log: pino({ level: "silent" }),
  metrics,
  store: { appendEvent: async ({ reason }: { reason: string }) => void events.push(reason) },
} as unknown as ControllerContext;
const signal = new AbortController().signal;

beforeAll(async () => {
  ({ binDir } = await ensurePostgres());
  // As the controller has it: nobody reads what is made without being given it.
  const before = process.umask(0o077);
  onUmask = () => void process.umask(before);
  directory = await mkdtemp(join(tmpdir(), "synapse-shards-moments-"));
  await chmod(directory, 0o711);
  server = await startPostgres({ dataDir: join(directory, "data"), binDir, logFile: join(directory, "log") });
  const { host, port, adminUser: user, adminPassword: password } = server;
  admin = { host, port, user, password };
  log = new PostgresServerLog(admin, { binDir, environment: systemEnvironment() }, join(directory, "received"));
  recoveries = new LocalRecoveries(server.dataDir, binDir);
  await sql("postgres", "CREATE DATABASE synapse_template_1 TEMPLATE template0");
  await sql("synapse_template_1", "CREATE TABLE said (n int); INSERT INTO said VALUES (0)");
  for (const name of ["a", "b"]) await create(name);
});
afterAll(async () => {
  onUmask();
  await server?.stop();
  await rm(server.dataDir, { recursive: true, force: true });
  await rm(directory, { recursive: true, force: true });
});

beforeEach(async ({ onTestFinished }) => {
  events = [];
  isKept = true;
  place = await mkdtemp(join(directory, "target-"));
  archiver = new LogArchiver(
    context,
    { config: () => (isKept ? { config, target: new DirectoryTarget(place) } : undefined) },
    log,
  );
  onTestFinished(async () => {
    isKept = false;
    await archiver.look();
    await archiver.close();
  });
});

async function sql(database: string, text: string): Promise<Record<string, unknown>[]> {
  return withConnection(admin, database, async (client) => (await client.query(text)).rows);
}

async function create(name: string): Promise<void> {
  await sql("postgres", `CREATE ROLE tenant_${name} LOGIN PASSWORD 'x'`);
  await sql("postgres", `CREATE DATABASE tenant_${name} TEMPLATE synapse_template_1 OWNER tenant_${name}`);
  await sql(`tenant_${name}`, `ALTER TABLE said OWNER TO tenant_${name}`);
}

const say = (name: string, n: number) => sql(`tenant_${name}`, `INSERT INTO said VALUES (${n})`);

/** The server's clock, with nothing committed just then. */
async function moment(): Promise<number> {
  const now = async () =>
    Number((await sql("postgres", "SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms"))[0]?.["ms"]);
  const [before] = [await now()];
  await expect.poll(now).toBeGreaterThan(before + 3);
  return before + 1;
}

const said: string[] = [];
const work = () => ({ say: (words: string) => void said.push(words), signal, now: () => clock.now() });

/** What a tenant's table had at a moment. */
async function then(tenant: string, at: number): Promise<unknown[]> {
  await archiver.flush(signal);
  return fromMoment({ archiver, recoveries, context }, tenant, at, work(), (login) =>
    withConnection(login, login.database, async (client) =>
      (await client.query<{ n: number }>("SELECT n FROM said ORDER BY n")).rows.map(({ n }) => n),
    ),
  );
}

async function untilCopied(copies = 1): Promise<void> {
  const look = async () => (await archiver.look(), await archiver.state());
  await expect.poll(async () => (await look()).bases.length).toBe(copies);
  await archiver.flush(signal);
  await expect.poll(async () => (await look()).spans.length).toBe(copies);
}

it("brings one of many databases back to any moment since the copy of the server, and does without the others'", async () => {
  await untilCopied();
  await say("a", 1);
  const first = await moment();
  await say("a", 2);
  await create("late");
  await say("late", 7);
  const second = await moment();
  await sql("tenant_late", "DELETE FROM said");
  await sql("tenant_a", "DELETE FROM said WHERE n = 1");
  expect(await then("a", first)).toEqual([0, 1]);
  // Made since the copy, out of a template that is in it.
  expect(await then("late", second)).toEqual([0, 7]);
  expect(existsSync(`${server.dataDir}.recovery`)).toBe(false);
});

it("has all of a database that was another tenant's when the copy was made, and says so", async () => {
  await create("x");
  await say("x", 1);
  await untilCopied();
  await say("x", 2);
  await sql("postgres", "ALTER DATABASE tenant_x RENAME TO tenant_c");
  await sql("postgres", "ALTER ROLE tenant_x RENAME TO tenant_c");
  const at = await moment();
  await say("c", 3);
  expect(await then("c", at)).toEqual([0, 1, 2]);
  expect(said).toContain("the database had another name when the base was made; once more, with it");
});

it("says which moments there are, where one is asked for that cannot be had", async () => {
  const long = Date.now() - 86_400_000;
  await expect(reachOf(archiver, long, clock.wall())).rejects.toThrow(/as yet there are none/);
  await untilCopied();
  await expect(reachOf(archiver, long, clock.wall())).rejects.toThrow(
    /the moment \S+ cannot be had: there are those from \S+ to \S+\. A backup/,
  );
  await expect(reachOf(archiver, Date.now() + 3_600_000, clock.wall())).rejects.toThrow("cannot be had");
  await expect(reachOf(archiver, clock.wall(), clock.wall())).resolves.toMatchObject({});
});

it("goes on where it was after the controller was killed, with a receiver and a recovery left behind", async () => {
  await untilCopied();
  await say("a", 11);
  // Of the process before: one that still receives, and a server aside.
  const other = new PostgresServerLog(admin, { binDir, environment: systemEnvironment() }, join(directory, "received"));
  const data = join(`${server.dataDir}.recovery`, "data");
  const left = fromMoment({ archiver, recoveries, context }, "a", await moment(), work(), async () => {
    expect(await runningServer(data)).toBeDefined();
    const killed = new LocalRecoveries(server.dataDir, binDir);
    await killed.clean();
    expect(await runningServer(data)).toBeUndefined();
    throw new UserError("Unavailable", "it is gone");
  });
  await archiver.flush(signal);
  await expect(left).rejects.toThrow("it is gone");
  expect(await other.keep(128 * 1024 ** 2)).toBe(true);
  const at = await moment();
  await say("a", 12);
  expect(await then("a", at)).toContain(11);
  expect(events).toEqual([]);
});

it("gives the log up rather than fill the disk while the target is away, and begins again with a copy", async () => {
  await untilCopied();
  await rename(place, `${place}.away`);
  await writeFile(place, "no directory");
  const fill = async () => {
    await say("b", 5);
    await sql("postgres", "SELECT pg_switch_wal()");
    await sql("postgres", "CHECKPOINT");
    const [slot] = await sql("postgres", "SELECT wal_status AS status FROM pg_replication_slots");
    // It begins again at once, where it sees that.
    await archiver.look();
    return slot?.["status"];
  };
  await expect.poll(fill, { interval: 10 }).toBe("lost");
  expect((await readdir(join(directory, "received"))).length).toBeLessThan(20);
  expect(events).toEqual([]);
  await rm(place);
  await rename(`${place}.away`, place);
  await untilCopied(2);
  expect(events).toEqual(["BackupLogGap"]);
  await say("a", 21);
  const at = await moment();
  await say("a", 22);
  expect(await then("a", at)).toContain(21);
});

it("keeps nothing on the server after moments are no longer wanted", async () => {
  await untilCopied();
  isKept = false;
  await archiver.look();
  expect(await sql("postgres", "SELECT FROM pg_replication_slots")).toEqual([]);
  expect(await sql("postgres", "SHOW max_slot_wal_keep_size")).toEqual([{ max_slot_wal_keep_size: "-1" }]);
});
