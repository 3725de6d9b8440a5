import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { besideNames, tenantDatabaseName } from "../../src/database/names.ts";
import type { BackupEntry, PointInTimeState } from "../../src/controller/service/backup-service.ts";
import type { InspectionFacts } from "../../src/model/inspection.ts";
import { until } from "../support/patience.ts";
import { S3_ACCESS, startS3, VERSITYGW } from "../support/s3-server.ts";
import { Cluster } from "./support/cluster.ts";
import { downloadMedia, logInAt, messagesOf, newUser, TestUser } from "./support/matrix.ts";
import { serverOf, startFromArchive } from "./support/plain-synapse.ts";

let cluster: Cluster;
/** Of this test. */
let folder: string;
/** Where backups are as files. */
let target: string;
let identityFile: string;
/** A real S3 server, where one was built; otherwise backups go to a directory. */
let s3: Awaited<ReturnType<typeof startS3>> | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "shards-backups-"));
  const identity = await generateIdentity();
  identityFile = join(folder, "backups.key");
  await writeFile(identityFile, `# the operator's\n${identity}\n`, { mode: 0o600 });
  const recipient = await identityToRecipient(identity);
  cluster = await Cluster.start({
    backups: { target: await newTarget(), recipient, pointInTime: { everySeconds: 10 } },
  });
});
afterAll(async () => {
  await cluster?.destroy();
  await s3?.close();
  await rm(folder, { recursive: true, force: true });
});

async function newTarget(): Promise<Record<string, unknown>> {
  target = join(folder, "target");
  if (!existsSync(VERSITYGW)) return { directory: target };
  s3 = await startS3();
  target = s3.directory;
  const credentialsFile = join(folder, "s3.yaml");
  await writeFile(credentialsFile, JSON.stringify(S3_ACCESS), { mode: 0o600 });
  return { bucket: "backups", endpoint: s3.endpoint, credentialsFile };
}

async function keysOf(tenant: string): Promise<unknown> {
  const { statusCode, body } = await request(`http://127.0.0.1:${await cluster.gatewayPort()}/_matrix/key/v2/server`, {
    headers: { host: `${tenant}.localhost` },
  });
  const answer = (await body.json()) as { verify_keys: unknown };
  expect([statusCode, answer.verify_keys]).toEqual([200, expect.any(Object)]);
  return answer.verify_keys;
}

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.cli(...args);
  expect(code, stderr).toBe(0);
  return stdout;
}

async function sql(database: string, text: string): Promise<Record<string, unknown>[]> {
  return withConnection(await serverOf(cluster), database, async (client) => (await client.query(text)).rows);
}

const momentsNow = () => cluster.json<PointInTimeState>("backup", "moments");
const backupsOf = (tenant: string) => cluster.json<BackupEntry[]>("tenant", "backups", tenant);

it("goes on with the tenants' keys after the store was lost, and never without them", async () => {
  await cluster.createTenant("clinic-a", "--label", "region=eu");
  const before = await keysOf("clinic-a");
  const { epoch } = await cluster.tenant("clinic-a");
  await cluster.end("SIGINT");
  for (const suffix of ["", "-wal", "-shm"]) await rm(join(cluster.dataDir, `store.db${suffix}`), { force: true });
  await expect(cluster.restart()).rejects.toThrow(
    /databases of tenants that .*store.db does not know: tenant_clinic_a.*up --recover/,
  );
  await cluster.restart("SIGINT", "--recover");
  expect(cluster.output).toContain("Restored the store from");
  await expect.poll(async () => (await cluster.tenant("clinic-a")).phase).toBe("Running");
  expect(await keysOf("clinic-a")).toEqual(before);
  expect((await cluster.tenant("clinic-a")).epoch).toBeGreaterThan(epoch);
  await cluster.restart();
  expect((await cluster.tenant("clinic-a")).phase).toMatch(/Running|Starting/);
});

/** As a client with encryption does. */
async function uploadOneTimeKey({ client }: TestUser): Promise<void> {
  const key = { key: "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI", signatures: {} };
  const url = `http://127.0.0.1:${await cluster.gatewayPort()}/_matrix/client/v3/keys/upload`;
  const { statusCode, body } = await request(url, {
    method: "POST",
    headers: { host: "clinic-a.localhost", authorization: `Bearer ${client.getAccessToken()}` },
    body: JSON.stringify({ one_time_keys: { "signed_curve25519:AAAAHg": key } }),
  });
  expect(statusCode, await body.text()).toBe(200);
}

let alice: TestUser;
let room: string;
let picture: string;

it("backs a tenant up while it is in use, its media once however often, and finds the backup good", async () => {
  await until("clinic-a runs", async () => (await cluster.tenant("clinic-a")).phase === "Running");
  alice = await newUser(cluster, "clinic-a", "alice");
  room = (await alice.client.createRoom({})).room_id;
  await alice.client.sendTextMessage(room, "before the backup");
  const upload = async (text: string) =>
    (await alice.client.uploadContent(Buffer.from(text), { type: "text/plain", name: "a.txt" })).content_uri;
  picture = await upload("the same bytes");
  await upload("the same bytes");
  await uploadOneTimeKey(alice);
  expect(await sql(tenantDatabaseName("clinic-a"), "SELECT FROM e2e_one_time_keys_json")).toHaveLength(1);
  await ok("tenant", "backup", "clinic-a");
  await upload("other bytes");
  await ok("tenant", "backup", "clinic-a");
  const [second, first] = await backupsOf("clinic-a");
  expect(first?.backup.media).toMatchObject({ files: 2, newFiles: 1 });
  expect(second?.backup.media).toMatchObject({ files: 3, newFiles: 1 });
  expect(second?.backup.database.counts).toMatchObject({ users: 1, rooms: 1, media: 3 });
  // Nobody but the recipient can read the keys.
  const sealed = await readFile(join(target, first?.backup.sealed.key ?? ""), "latin1");
  expect(sealed).toMatch(/^age-encryption.org/);
  expect(await ok("backup", "verify")).toContain("can be restored");
  expect((await backupsOf("clinic-a"))[0]?.verification).toMatchObject({ ok: true, problems: [] });
  expect(await sql("postgres", "SELECT FROM pg_database WHERE datname LIKE 'scratch%'")).toEqual([]);
});

it("brings a tenant back to a backup within seconds, and back again, with its keys and logins", async () => {
  const before = await keysOf("clinic-a");
  await alice.client.sendTextMessage(room, "after the backup");
  const database = tenantDatabaseName("clinic-a");
  const deviceLists = async () =>
    Number((await sql(database, "SELECT max(stream_id) AS last FROM device_lists_stream"))[0]?.["last"]);
  const lastDeviceList = await deviceLists();
  const [{ backup }] = (await backupsOf("clinic-a")) as [BackupEntry, ...BackupEntry[]];
  const { epoch } = await cluster.tenant("clinic-a");
  const said = await ok(
    "tenant",
    "restore",
    "clinic-a",
    // As if they were another cluster's.
    "--from",
    target,
    "--at",
    new Date(Date.parse(backup.takenAt) + 1).toISOString(),
  );
  expect(said).toContain(`clinic-a runs with backup ${backup.id}; it was away for`);
  expect(await messagesOf(alice, room)).toEqual(["before the backup"]);
  expect(await downloadMedia(alice, picture)).toBe("the same bytes");
  expect(await keysOf("clinic-a")).toEqual(before);
  expect((await cluster.tenant("clinic-a")).epoch).toBeGreaterThan(epoch);
  // A key that was given out once is not given out again, and other servers are told of devices again.
  expect(await sql(database, "SELECT FROM e2e_one_time_keys_json")).toEqual([]);
  expect(await deviceLists()).toBeGreaterThan(lastDeviceList);
  await alice.client.sendTextMessage(room, "after the restore");
  await ok("tenant", "restore", "clinic-a", "--undo");
  expect(await messagesOf(alice, room)).toEqual(["before the backup", "after the backup"]);
  await ok("tenant", "restore", "clinic-a", "--forget");
  const { replaced } = besideNames("clinic-a");
  expect(await sql("postgres", `SELECT FROM pg_database WHERE datname = '${replaced}'`)).toEqual([]);
});

it("brings a tenant back to a moment between backups, and shows a backup beside the tenant that runs", async () => {
  const other = (await alice.client.createRoom({})).room_id;
  await until("there are moments", async () => (await momentsNow()).spans.length > 0);
  await alice.client.sendTextMessage(other, "wanted");
  const moment = new Date();
  await until("the moment is over", async () => Date.now() > moment.getTime() + 10, 5);
  await alice.client.sendTextMessage(other, "regretted");
  const early = await cluster.cli("tenant", "restore", "clinic-a", "--at", "2026-01-01T00:00:00Z");
  expect([early.code, early.stderr]).toEqual([2, expect.stringContaining("cannot be had: there are those from")]);
  const said = await ok("tenant", "restore", "clinic-a", "--at", moment.toISOString());
  expect(said).toContain(`clinic-a runs with its state of ${moment.toISOString()}; it was away for`);
  expect(await messagesOf(alice, other)).toEqual(["wanted"]);
  await ok("tenant", "restore", "clinic-a", "--undo");
  expect(await messagesOf(alice, other)).toEqual(["wanted", "regretted"]);

  const facts = await cluster.json<InspectionFacts>("tenant", "inspect", "clinic-a");
  expect(facts).toMatchObject({ counts: { users: 1, rooms: 1 }, users: [{ name: "@alice:clinic-a.localhost" }] });
  expect(facts.lastEvents.map(({ type }) => type)).toContain("m.room.message");
  expect(await ok("tenant", "inspections")).toContain(facts.inspection.of);
  await ok("tenant", "inspect", "clinic-a", "--remove");
  expect(await sql("postgres", "SELECT FROM pg_database WHERE datname LIKE 'inspected%'")).toEqual([]);
});

it("backs a sleeping tenant up without waking it", async () => {
  // What it owes to anybody is done first.
  await until("it falls asleep", async () => (await cluster.cli("tenant", "sleep", "clinic-a")).code === 0);
  await ok("tenant", "backup", "clinic-a");
  expect((await cluster.tenant("clinic-a")).phase).toBe("Asleep");
  await ok("tenant", "wake", "clinic-a");
});

it("says that a backup is damaged, and restores nothing of it", async () => {
  const [{ backup }] = (await backupsOf("clinic-a")) as [BackupEntry, ...BackupEntry[]];
  const file = join(target, backup.database.key);
  const whole = await readFile(file);
  await writeFile(file, whole.subarray(0, whole.length - 1000));
  const verified = await cluster.cli("backup", "verify", "clinic-a");
  expect(verified.code).toBe(1);
  expect(verified.stderr).toContain("is damaged");
  const restored = await cluster.cli("tenant", "restore", "clinic-a");
  expect(restored.code).toBe(1);
  expect(await messagesOf(alice, room)).toEqual(["before the backup", "after the backup"]);
  await writeFile(file, whole);
});

it("brings a tenant back that brings its database along, in that database, and back again", async () => {
  const { host, port } = await serverOf(cluster);
  await sql("postgres", "CREATE ROLE theirs LOGIN PASSWORD 'theirs'");
  await sql("postgres", "CREATE DATABASE theirs OWNER theirs TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'");
  const args = { host, port, user: "theirs", password: "theirs", dbname: "theirs", cp_min: 1, cp_max: 5 };
  const config = join(folder, "theirs.yaml");
  await writeFile(config, JSON.stringify({ database: { name: "psycopg2", args } }));
  await cluster.createTenant("clinic-x", "--config", config);
  await until("clinic-x runs", async () => (await cluster.tenant("clinic-x")).phase === "Running");
  const bob = await newUser(cluster, "clinic-x", "bob");
  const { room_id: hers } = await bob.client.createRoom({});
  await bob.client.sendTextMessage(hers, "before the backup");
  const { content_uri: scan } = await bob.client.uploadContent("a scan", { type: "text/plain" });
  await ok("tenant", "backup", "clinic-x");
  await rm(join(cluster.dataDir, "media", "clinic-x", "local_content"), { recursive: true });
  await bob.client.sendTextMessage(hers, "after the backup");
  const { epoch } = await cluster.tenant("clinic-x");
  expect(await ok("tenant", "restore", "clinic-x")).toContain("it was away for");
  expect((await bob.client.whoami()).user_id).toBe("@bob:clinic-x.localhost");
  expect(await messagesOf(bob, hers)).toEqual(["before the backup"]);
  expect(await downloadMedia(bob, scan)).toBe("a scan");
  expect((await cluster.tenant("clinic-x")).epoch).toBeGreaterThan(epoch);
  await bob.client.sendTextMessage(hers, "after the restore");
  await ok("tenant", "restore", "clinic-x", "--undo");
  expect(await messagesOf(bob, hers)).toEqual(["before the backup", "after the backup"]);
  await bob.client.sendTextMessage(hers, "and on");
  await ok("tenant", "restore", "clinic-x", "--forget");
  const again = await cluster.cli("tenant", "restore", "clinic-x", "--undo");
  expect([again.code, again.stderr]).toEqual([1, expect.stringContaining("there is no restore to undo")]);
  await ok("tenant", "delete", "clinic-x", "--purge", "--yes");
  // A tenant that is gone comes back with its database alone, which is its owner's.
  await rm(join(target, "backups", "clinic-x"), { recursive: true });
});

it("gives a tenant another name under load, and keeps its messages, media, logins, keys and backups", async () => {
  const keys = await keysOf("clinic-a");
  const other = (await alice.client.createRoom({})).room_id;
  const failures = alice.failures.length;
  const sent: string[] = [];
  let sending = true;
  const sender = (async () => {
    for (let n = 0; sending; n++) {
      await alice.client.sendTextMessage(other, `message ${n}`);
      sent.push(`message ${n}`);
    }
  })();
  expect(await ok("tenant", "rename", "clinic-a", "practice-a")).toContain(
    "tenant clinic-a is practice-a now; its server name is clinic-a.localhost",
  );
  // The same command again says the same.
  await ok("tenant", "rename", "clinic-a", "practice-a");
  const before = sent.length;
  await expect.poll(() => sent.length).toBeGreaterThan(before + 3);
  sending = false;
  await sender;
  // It sends as fast as it can, and Synapse's own limit of messages is no failure.
  expect(alice.failures.slice(failures).filter(({ what }) => what !== "status 429")).toEqual([]);
  expect(await messagesOf(alice, other)).toEqual(sent);
  expect(await downloadMedia(alice, picture)).toBe("the same bytes");
  expect((await (await logInAt((await cluster.tenant("practice-a")).url, "alice")).client.whoami()).user_id).toBe(
    "@alice:clinic-a.localhost",
  );
  expect(await keysOf("clinic-a")).toEqual(keys);
  const former = await cluster.cli("tenant", "describe", "clinic-a");
  expect([former.code, former.stderr]).toEqual([3, expect.stringContaining("it was renamed to practice-a")]);
  const ofTenants = "SELECT datname FROM pg_database WHERE datname ~ '^tenant_'";
  const databases = async () => (await sql("postgres", ofTenants)).map((row) => row["datname"]);
  expect(await databases()).toEqual([tenantDatabaseName("clinic-a")]);

  // Another one that takes the former name has data of its own, and takes no others along when it goes.
  await cluster.createTenant("clinic-a", "--server-name", "other.localhost");
  expect(await databases()).toHaveLength(2);
  await ok("tenant", "delete", "clinic-a", "--purge", "--yes");
  await expect.poll(databases).toEqual([tenantDatabaseName("clinic-a")]);
  expect(await messagesOf(alice, room)).toEqual(["before the backup", "after the backup"]);
});

it("restores a backup from before the rename, sleeps, wakes, and gets its former name back", async () => {
  const [newest] = (await backupsOf("practice-a")) as [BackupEntry, ...BackupEntry[]];
  expect(newest.backup.tenant).toBe("practice-a");
  await alice.client.sendTextMessage(room, "after the rename");
  await ok("tenant", "restore", "practice-a");
  expect(await messagesOf(alice, room)).toEqual(["before the backup", "after the backup"]);
  expect(await downloadMedia(alice, picture)).toBe("the same bytes");
  await ok("tenant", "restore", "practice-a", "--forget");
  await until("it falls asleep", async () => (await cluster.cli("tenant", "sleep", "practice-a", "--wait")).code === 0);
  // Asleep it stays so, and is woken by a request under the name that it has then.
  await ok("tenant", "rename", "practice-a", "clinic-a");
  expect((await cluster.tenant("clinic-a")).phase).toBe("Asleep");
  expect(await messagesOf(alice, room)).toEqual(["before the backup", "after the backup"]);
  expect((await cluster.tenant("clinic-a")).phase).toBe("Running");
  const { stdout } = await cluster.cli("tenant", "describe", "clinic-a");
  expect(stdout).toMatch(/Former name: +practice-a/);
  expect(stdout).not.toContain("Data named");
});

it("exports a suspended tenant into an archive from which a plain Synapse goes on with it", async () => {
  const keysBefore = await keysOf("clinic-a");
  const archive = join(folder, "leaving");
  await ok("tenant", "suspend", "clinic-a", "--wait");
  expect(await ok("tenant", "export", "clinic-a", "--to", archive)).toContain("exported clinic-a.localhost to");
  const again = await cluster.cli("tenant", "export", "clinic-a", "--to", archive);
  expect([again.code, again.stderr]).toEqual([2, expect.stringContaining("is there already")]);
  expect(await readdir(join(cluster.dataDir, "spool"))).toEqual([]);
  expect(await readFile(join(archive, "README.md"), "utf8")).toContain("pg_restore");
  const plain = await startFromArchive(cluster, archive);
  try {
    const login = {
      accessToken: alice.client.getAccessToken()!,
      userId: alice.client.getUserId()!,
      deviceId: alice.client.getDeviceId()!,
    };
    const sameDevice = new TestUser(plain.url, login);
    expect(await messagesOf(sameDevice, room)).toEqual(["before the backup", "after the backup"]);
    expect(await downloadMedia(await logInAt(plain.url, "alice"), picture)).toBe("the same bytes");
    const { body } = await request(`${plain.url}/_matrix/key/v2/server`);
    expect(await body.json()).toMatchObject({ verify_keys: keysBefore });
    await sameDevice.client.sendTextMessage(room, "on the plain one");
    // What fenced the tenant's shards is not for others.
    expect(await sql("synapse", "SELECT FROM pg_namespace WHERE nspname = 'synapse_shards'")).toEqual([]);
  } finally {
    await plain.end();
  }
  await ok("tenant", "resume", "clinic-a", "--wait");
});

it("brings every tenant back from the backups alone after the data directory was lost", async () => {
  const before = await keysOf("clinic-a");
  // Found by the name that it had at its last backup.
  await ok("tenant", "rename", "clinic-a", "practice-a");
  await ok("tenant", "backup", "practice-a");
  await cluster.end("SIGINT");
  for (const entry of await readdir(cluster.dataDir))
    if (entry !== "cluster.yaml") await rm(join(cluster.dataDir, entry), { recursive: true, force: true });
  await cluster.restart();
  expect(await cluster.tenants()).toEqual([]);
  const refused = await cluster.cli("tenant", "restore", "practice-a");
  expect(refused.stderr).toContain("--identity");
  await ok("backup", "restore-all", "--identity", identityFile);
  expect(await ok("tenant", "list", "-l", "region=eu", "-o", "name")).toContain("practice-a");
  expect(await keysOf("clinic-a")).toEqual(before);
  // The same login as before, not a new one.
  const { client } = alice;
  const login = { accessToken: client.getAccessToken()!, userId: client.getUserId()!, deviceId: client.getDeviceId()! };
  const again = new TestUser((await cluster.tenant("practice-a")).url, login);
  expect(await messagesOf(again, room)).toEqual(["before the backup", "after the backup"]);
  expect(await downloadMedia(again, picture)).toBe("the same bytes");
  await again.client.sendTextMessage(room, "after the loss of everything");
  expect(await sql(tenantDatabaseName("clinic-a"), "SELECT count(*)::int AS users FROM users")).toEqual([{ users: 1 }]);
});
