import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { downloadMedia, logIn, messagesOf } from "./support/matrix.ts";
import { OldSynapse } from "./support/old-synapse.ts";
import { serverOf } from "./support/plain-synapse.ts";

// A schema is made in each of them, by several releases: minutes on a machine that is busy with others.
vi.setConfig({ testTimeout: 8 * PATIENCE_MS, hookTimeout: 8 * PATIENCE_MS });

let cluster: Cluster;
let onSqlite: OldSynapse;
let onPostgres: OldSynapse;

beforeAll(async () => {
  const sqlite = OldSynapse.start("1.99.0", "old.localhost");
  cluster = await Cluster.start();
  const server = await serverOf(cluster);
  await withConnection(server, "postgres", async (client) => {
    await client.query("CREATE ROLE former LOGIN PASSWORD 'former'");
    await client.query("CREATE DATABASE former OWNER former ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0");
  });
  const database = { host: server.host, port: server.port, user: "former", password: "former", database: "former" };
  const more = { redis: { enabled: true }, no_such_option: 1 };
  [onSqlite, onPostgres] = await Promise.all([
    sqlite,
    OldSynapse.start("1.150.0", "former.localhost", { database, more }),
  ]);
});
afterAll(async () => {
  await Promise.all([onSqlite?.end(), onPostgres?.end()]);
  await cluster?.destroy();
  for (const old of [onSqlite, onPostgres]) if (old) await rm(old.directory, { recursive: true, force: true });
});

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

it("rehearses the import of a SQLite database while its server runs, and leaves nothing of it", async () => {
  const before = await databases();
  const { code, words } = await importing("old", onSqlite, "--from-release", "1.99.0", "--rehearse");
  expect(code, words).toBe(0);
  expect(words).toMatch(/rehearsal went well.*1 users, .*1 uploads; 1 media files are copied\. The switch takes about/);
  expect(words).toMatch(/listeners +changed/);
  expect(await databases()).toEqual(before);
  expect(await cluster.tenants()).toEqual([]);
  const early = await importing("old", onSqlite, "--from-release", "1.99.0");
  expect(early.words).toContain("the old server still runs");
  expect(early.code).toBe(1);
});

it("goes on with the users, messages, media and keys of a SQLite database of Synapse 1.99", async () => {
  await onSqlite.end();
  const { code, words } = await importing("old", onSqlite, "--from-release", "1.99.0");
  expect(code, words).toBe(0);
  expect(words).toContain("old runs as old.localhost: 1 users");
  await expectContinued("old", onSqlite);
  expect((await importing("old", onSqlite)).words).toContain("there is a tenant named old already");
});

it("imports a PostgreSQL database of Synapse 1.150, and drops no option without a word", async () => {
  const { host, port } = await serverOf(cluster);
  const address = `${host}:${port}/former`;
  const refused = await importing("former", onPostgres, "--rehearse");
  expect(refused.code, refused.words).toBe(1);
  expect(refused.words).toMatch(/a tenant may not set redis/);
  expect(refused.words).toMatch(/no_such_option +unknown/);
  const wrong = ["--database", `postgres://former:wrong@${address}`];
  expect((await importing("former", onPostgres, "--without-refused", ...wrong)).words).toMatch(
    /password authentication/,
  );
  await onPostgres.end();
  const { code, words } = await importing("former", onPostgres, "--without-refused");
  expect(code, words).toBe(0);
  await expectContinued("former", onPostgres);
});
