import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
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
}, 300_000);
