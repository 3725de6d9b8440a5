import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { withConnection, type Login } from "../../src/database/connection.ts";
import { readTenantUsage } from "../../src/database/usage-reading.ts";
import { readUsers } from "../../src/database/users-reading.ts";
import { beginOf } from "../../src/model/usage-month.ts";
import type { UsageQuestion } from "../../src/ports/databases.ts";
import { Preparer } from "../../src/platforms/local/launcher/preparer.ts";
import { describeDatabase, provisionTenantDatabase } from "../../src/database/tenant-database.ts";
import { ensureTemplate } from "../../src/database/template.ts";
import { ensureSynapse } from "../../src/platforms/local/toolchain/toolchain.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";

const VERSION = "1.163.2";
const ROOT = join(import.meta.dirname, "../..");

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
}, 60_000);
afterAll(() => server?.stop());

test("gives a tenant the complete schema of a real release, and ownership of all of it", async () => {
  const { admin } = server;
  const { python } = await ensureSynapse(VERSION);
  const preparer = await Preparer.start({ python, env: { PYTHONPATH: ROOT }, cwd: ROOT });
  try {
    expect(preparer.facts.release).toBe(VERSION);
    await ensureTemplate(admin, VERSION, async (database) => void (await preparer.template(database)));
  } finally {
    await preparer.close();
  }
  const password = "of-clinic-a";
  await provisionTenantDatabase(admin, { name: "clinic-a", password, version: VERSION });
  const login = { ...admin, user: "tenant_clinic_a", password, database: "tenant_clinic_a" };
  expect(await describeDatabase(login)).toEqual({
    exists: true,
    schemaVersion: preparer.facts.schemaVersion,
    schemaCompatVersion: preparer.facts.schemaCompatVersion,
    epoch: 0,
  });
  await withConnection(login, login.database, async (client) => {
    const { rows: foreign } = await client.query(
      `SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
         WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' AND relowner <> current_user::regrole`,
    );
    expect(foreign).toEqual([]);
    const { rows } = await client.query(
      "SELECT (SELECT count(*)::int FROM background_updates) AS updates, (SELECT count(*)::int FROM pg_tables WHERE schemaname = 'public') AS tables",
    );
    expect(rows[0].updates).toBe(0);
    expect(rows[0].tables).toBeGreaterThan(100);
  });
  await showsItsUsers(login);
  await tellsItsUsage(login);
}, 300_000);

/** As Synapse has written them, and none of them afterwards. */
async function showsItsUsers(login: Login & { database: string }): Promise<void> {
  await withConnection(login, login.database, async (client) => {
    await client.query(`
      INSERT INTO users (name, deactivated, is_guest, appservice_id, admin, creation_ts) VALUES
        ('@u:a.example', 0, 0, NULL, 1, 1767225600), ('@v:a.example', 0, 0, NULL, 0, NULL),
        ('@gone:a.example', 1, 0, NULL, 0, NULL), ('@guest:a.example', 0, 1, NULL, 0, NULL),
        ('@bridged:a.example', 0, 0, 'bridge', 0, NULL);
      INSERT INTO profiles (user_id, full_user_id, displayname) VALUES ('u', '@u:a.example', 'Ursula %');
      INSERT INTO user_daily_visits (user_id, device_id, timestamp) VALUES
        ('@u:a.example', 'd', 1767225600000), ('@u:a.example', 'd', 1769904000000), ('@v:a.example', 'd', 1769817600000)`);
  });
  const all = await readUsers(login, { offset: 0, limit: 10 });
  const plain = { admin: false, deactivated: false, locked: false, appservice: false };
  expect(all).toMatchObject({
    total: 4,
    items: [
      { ...plain, userId: "@bridged:a.example", appservice: true },
      { ...plain, userId: "@gone:a.example", deactivated: true },
      {
        ...plain,
        userId: "@u:a.example",
        displayName: "Ursula %",
        admin: true,
        createdAt: "2026-01-01T00:00:00.000Z",
        lastSeen: "2026-02-01",
      },
      { ...plain, userId: "@v:a.example", lastSeen: "2026-01-31" },
    ],
  });
  const found = async (search: string) => (await readUsers(login, { search, offset: 0, limit: 10 })).total;
  expect([await found("URSULA"), await found("%"), await found("@V:"), await found("_")]).toEqual([1, 1, 1, 0]);
  expect((await readUsers(login, { offset: 3, limit: 1 })).items.map(({ userId }) => userId)).toEqual(["@v:a.example"]);
  await withConnection(login, login.database, (client) =>
    client.query("DELETE FROM user_daily_visits; DELETE FROM profiles; DELETE FROM users"),
  );
}

/** In the tables of the real release, whose columns are Synapse's. */
async function tellsItsUsage(login: Login & { database: string }): Promise<void> {
  const [january, february, march] = ["2026-01", "2026-02", "2026-03"].map(beginOf) as [number, number, number];
  const ask = (more: Partial<UsageQuestion> = {}) =>
    readTenantUsage(login, "a.example", { months: ["2026-01", "2026-02"], receivedBefore: march, ...more });
  const empty = { users: 0, mediaBytes: 0, messages: { from: undefined, to: 0, sent: [] } };
  expect(await ask()).toMatchObject(empty);
  await withConnection(login, login.database, async (client) => {
    await client.query(`
      INSERT INTO users (name, deactivated, is_guest, appservice_id) VALUES
        ('@u:a.example', 0, 0, NULL), ('@v:a.example', 0, 0, NULL), ('@gone:a.example', 1, 0, NULL),
        ('@guest:a.example', 0, 1, NULL), ('@bridged:a.example', 0, 0, 'bridge');
      INSERT INTO local_media_repository (media_id, media_length, url_cache) VALUES
        ('m', 2147483647, NULL), ('n', 2147483647, NULL), ('preview', 5, 'http://x/')`);
    const visit = (user: string, device: string, at: number) =>
      client.query("INSERT INTO user_daily_visits (user_id, device_id, timestamp) VALUES ($1, $2, $3)", [
        user,
        device,
        at,
      ]);
    for (const device of ["d", "e"]) await visit("@u:a.example", device, january);
    for (const user of ["@u:a.example", "@v:a.example"]) await visit(user, "d", february - 86_400_000);
    await visit("@u:a.example", "d", february);
    let place = 0;
    const event = (type: string, sender: string, at: number) =>
      client.query(
        `INSERT INTO events (event_id, type, room_id, sender, received_ts, stream_ordering, topological_ordering, processed,
                             outlier, depth)
         VALUES ($1::bigint::text, $2, '!r', $3, $4, $1::bigint, 1, true, false, 1)`,
        [++place, type, sender, at],
      );
    await event("m.room.message", "@u:a.example", february - 1);
    await event("m.room.encrypted", "@u:a.example", february);
    await event("m.room.member", "@u:a.example", february);
    await event("m.room.message", "@u:aa.example", february);
    await event("m.room.message", "@v:a.example", february);
    await event("m.room.message", "@v:a.example", march);
    await event("m.room.message", "@v:a.example", march - 1);
  });
  const first = await ask();
  expect(first).toEqual({
    users: 2,
    mediaBytes: 2 * 2147483647,
    databaseBytes: expect.any(Number) as number,
    active: [
      { month: "2026-01", activeUsers: 2, activeUsersDailyPeak: 2 },
      { month: "2026-02", activeUsers: 1, activeUsersDailyPeak: 1 },
    ],
    // Up to the first that is too young, whatever comes behind it.
    messages: { from: undefined, to: 5, sent: expect.arrayContaining([{ month: "2026-01", count: 1 }]) as unknown[] },
  });
  expect(first.databaseBytes).toBeGreaterThan(1_000_000);
  expect(first.messages?.sent).toContainEqual({ month: "2026-02", count: 2 });
  // Each is counted once.
  expect((await ask({ messagesFrom: 5, receivedBefore: march + 1 })).messages).toEqual({
    from: 5,
    to: 7,
    sent: expect.arrayContaining([
      { month: "2026-02", count: 1 },
      { month: "2026-03", count: 1 },
    ]) as unknown[],
  });
  expect((await ask({ messagesFrom: 7, receivedBefore: march + 1 })).messages).toEqual({ from: 7, to: 7, sent: [] });
  // A database that was put back to an earlier state.
  expect((await ask({ messagesFrom: 900, receivedBefore: march + 1 })).messages).toEqual({
    from: 900,
    to: 7,
    sent: [],
  });
  // Its owner can put anything in the place of a table; the rest is told.
  await withConnection(login, login.database, async (client) => {
    await client.query(`
      ALTER TABLE users RENAME TO former_users;
      CREATE VIEW users AS SELECT 0 AS deactivated, 0 AS is_guest, pg_sleep(60)::text AS appservice_id;
      ALTER TABLE user_daily_visits RENAME TO former_visits`);
  });
  const { users, active, mediaBytes } = await ask();
  expect([users, active, mediaBytes]).toEqual([undefined, [], 2 * 2147483647]);
}
