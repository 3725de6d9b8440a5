import { afterAll, beforeAll, expect, test } from "vitest";
import { literal, withConnection } from "../../src/database/connection.ts";
import { scramVerifier } from "../../src/database/scram.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.stop());

test.each([
  [
    "a tenant's own secret, by one hash, which each of its connections computes",
    newTenantSecrets("a.example").databasePassword,
    1,
  ],
  ["what people chose, by as many as PostgreSQL takes itself", "correct horse battery staple", 4096],
  ["something as long that is no secret of ours", "a password of just forty-three characters!!", 4096],
])("PostgreSQL lets in by %s, and by nothing else", async (_what, password, iterations) => {
  const { admin } = server;
  const stored = await withConnection(admin, "postgres", async (client) => {
    await client.query("DROP ROLE IF EXISTS somebody");
    await client.query(`CREATE ROLE somebody LOGIN PASSWORD ${literal(scramVerifier(password))}`);
    return client.query<{ rolpassword: string }>("SELECT rolpassword FROM pg_authid WHERE rolname = 'somebody'");
  });
  expect(stored.rows[0]?.rolpassword).toMatch(new RegExp(`^SCRAM-SHA-256\\$${iterations}:`));
  const whoAmI = (as: string) =>
    withConnection({ ...admin, user: "somebody", password: as }, "postgres", (client) => client.query("SELECT user"));
  expect((await whoAmI(password)).rows).toEqual([{ user: "somebody" }]);
  await expect(whoAmI(`${password.slice(0, -1)}~`)).rejects.toThrow("password authentication failed");
  expect(await server.log()).not.toContain(password);
});
