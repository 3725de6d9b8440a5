import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import type { Job } from "../../src/model/backup.ts";
import { PATIENCE_MS, until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { read, withCrypto } from "./support/crypto-clients.ts";
import { downloadMedia, logIn, messagesOf, type TestUser } from "./support/matrix.ts";
import { OldSynapse, Way } from "./support/old-synapse.ts";
import { databaseBeside, serverOf } from "./support/plain-synapse.ts";

// A schema is made in each of them, by several releases: minutes on a machine that is busy with others.
vi.setConfig({ testTimeout: 8 * PATIENCE_MS, hookTimeout: 8 * PATIENCE_MS });

const POLL_MS = 1_000;

let cluster: Cluster;
let onSqlite: OldSynapse;
let onPostgres: OldSynapse;
let reader: { user: TestUser; way: Way; heard: string[] };

beforeAll(async () => {
  const sqlite = OldSynapse.start("1.99.0", "old.localhost");
  cluster = await Cluster.start();
  const database = await databaseBeside(cluster, "former");
  const more = { redis: { enabled: true }, no_such_option: 1 };
  [onSqlite, onPostgres] = await Promise.all([
    sqlite,
    OldSynapse.start("1.150.0", "former.localhost", { database, more }),
  ]);
  reader = await sendEncrypted(onPostgres);
});
afterAll(async () => {
  reader?.user.stop();
  await Promise.all([onSqlite?.end(), onPostgres?.end()]);
  await cluster?.destroy();
  for (const old of [onSqlite, onPostgres]) if (old) await rm(old.directory, { recursive: true, force: true });
});

/** A message whose key its reader has not got yet, as the server was out of reach by then. */
async function sendEncrypted(old: OldSynapse): Promise<typeof reader> {
  const writer = await withCrypto(await old.register("carol"));
  const way = new Way(old.port);
  const user = await withCrypto(await old.register("dave", way));
  const { room_id: roomId } = await writer.client.createRoom({
    preset: "private_chat" as never,
    invite: [user.client.getSafeUserId()],
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
  });
  await user.client.joinRoom(roomId);
  const heard = read(user, roomId);
  await Promise.all([writer.sync(POLL_MS), user.sync(POLL_MS)]);
  // Its device's keys are uploaded after the first sync, and without them nothing is encrypted for it.
  const readerId = user.client.getSafeUserId();
  await until("the writer knows the reader's device", async () => {
    const known = await writer.client.getCrypto()!.getUserDeviceInfo([readerId], true);
    return (known.get(readerId)?.size ?? 0) > 0;
  });
  way.port = undefined;
  await until("the reader is cut off", async () => user.failures.some(({ what }) => what.includes("leads nowhere")));
  await writer.client.sendTextMessage(roomId, "for dave alone");
  writer.stop();
  return { user, way, heard };
}

async function databases(): Promise<string[]> {
  return withConnection(await serverOf(cluster), "postgres", async (client) => {
    const { rows } = await client.query<{ datname: string }>("SELECT datname FROM pg_database ORDER BY 1");
    return rows.map(({ datname }) => datname).filter((name) => !name.startsWith("synapse_template"));
  });
}

/** As the CLI has it for programs, also where it fails. */
async function importing(name: string, old: OldSynapse, ...more: string[]): Promise<{ code: number; words: string }> {
  const file = join(old.directory, "homeserver.yaml");
  const { code, stdout, stderr } = await cluster.cli("tenant", "import", name, "--homeserver-yaml", file, ...more);
  return { code, words: `${stdout}\n${stderr}` };
}

async function expectContinued(name: string, old: OldSynapse): Promise<void> {
  const { url } = await cluster.tenant(name);
  const same = old.at(url);
  expect(await messagesOf(same, old.room)).toEqual(["on the old server"]);
  expect(await downloadMedia(await logIn(cluster, name, "alice"), old.mxc)).toBe("old bytes");
  await same.client.sendTextMessage(old.room, "on the new one");
  expect(await messagesOf(same, old.room)).toEqual(["on the old server", "on the new one"]);
}

it("rehearses an import while the old server runs, leaves nothing of it, and drops no option without a word", async () => {
  const before = await databases();
  const { host, port } = await serverOf(cluster);
  const refused = await importing("former", onPostgres, "--rehearse");
  expect(refused.code, refused.words).toBe(1);
  expect(refused.words).toMatch(/a tenant may not set redis/);
  expect(refused.words).toMatch(/no_such_option +unknown/);
  const wrong = ["--database", `postgres://former:wrong@${host}:${port}/former`];
  expect((await importing("former", onPostgres, "--without-refused", ...wrong)).words).toMatch(
    /password authentication/,
  );
  const { code, words } = await importing("former", onPostgres, "--without-refused", "--rehearse");
  expect(code, words).toBe(0);
  expect(words).toMatch(/rehearsal went well.*3 users, .*1 uploads; 1 media files are copied\. The switch takes about/);
  expect(words).toMatch(/listeners +changed/);
  expect(await databases()).toEqual(before);
  expect(await cluster.tenants()).toEqual([]);
  for (const [name, old] of [
    ["former", onPostgres],
    ["old", onSqlite],
  ] as const) {
    const early = await importing(name, old, "--without-refused");
    expect(early.words).toContain("the old server still runs");
    expect(early.code).toBe(1);
  }
});

it("goes on with a PostgreSQL database of Synapse 1.150; a client reads what was encrypted for it before", async () => {
  await onPostgres.end();
  const { code, words } = await importing("former", onPostgres, "--without-refused");
  expect(code, words).toBe(0);
  await expectContinued("former", onPostgres);
  const { user, way, heard } = reader;
  expect(heard).toEqual([]);
  way.port = await cluster.gatewayPort();
  user.client.retryImmediately();
  await expect.poll(() => heard).toEqual(["for dave alone"]);
});

it("goes on with a SQLite database of Synapse 1.99 after the controller was killed in the midst of its import", async () => {
  await onSqlite.end();
  const interrupted = importing("old", onSqlite, "--from-release", "1.99.0");
  const job = async () => (await cluster.api("GET", "/v1/jobs")).body as { items: Job[] };
  const isUnderWay = async () =>
    (await job()).items.some(({ tenant, message }) => tenant === "old" && /^database: \w+: \d/.test(message));
  await until("the database is brought over", isUnderWay);
  process.kill(await cluster.processPid("controller"), "SIGKILL");
  expect((await interrupted).code).toBe(1);
  await until("the controller is back", async () => (await cluster.cli("tenant", "list")).code === 0);
  const { code, words } = await importing("old", onSqlite, "--from-release", "1.99.0");
  expect(code, words).toBe(0);
  expect(words).toContain("old runs as old.localhost: 1 users");
  await expectContinued("old", onSqlite);
  expect((await importing("old", onSqlite)).words).toContain("there is a tenant named old already");
});

it("takes back what it has exported", async () => {
  const archive = join(onSqlite.directory, "leaving.tar");
  const steps = [
    ["tenant", "suspend", "old", "--wait"],
    ["tenant", "export", "old", "--to", archive],
    ["tenant", "delete", "old", "--purge", "--yes", "--wait"],
  ];
  for (const step of steps) {
    const { code, stderr } = await cluster.cli(...step);
    expect(code, stderr).toBe(0);
  }
  const job = await cluster.json<Job>("tenant", "import", "again", "--archive", archive);
  expect(job).toMatchObject({ state: "Succeeded", message: expect.stringContaining("again runs as old.localhost") });
  // An archive names the address by which clients are to find it, which leads nowhere here.
  const url = `http://old.localhost:${await cluster.gatewayPort()}`;
  expect(await messagesOf(onSqlite.at(url), onSqlite.room)).toEqual(["on the old server", "on the new one"]);
  expect(await downloadMedia(onSqlite.at(url), onSqlite.mxc)).toBe("old bytes");
});
