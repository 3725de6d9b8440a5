import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { tenantDatabaseName } from "../../src/database/names.ts";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { withConfig } from "./support/fixtures.ts";
import { messagesOf, newUser } from "./support/matrix.ts";

const OLD = "1.157.2";
const NEW = "1.163.2";
/** Knows schema 83 at the most, which cannot read what both of the others write. */
const ANCIENT = "1.99.0";

/** Its schema is an older one, so that an upgrade from it is a migration. */
const OLD_SCHEMA = "1.150.0";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({
    release: OLD,
    consolidateAfterSeconds: 2,
    avgShardsLoadRedistributionThreshold: 1,
    allowUntestedReleases: [OLD_SCHEMA, ANCIENT],
  });
  const config = await withConfig(cluster);
  await cluster.createTenant("clinic-a", ...config);
  await cluster.createTenant("clinic-b", ...config);
});
afterAll(() => cluster?.destroy());

async function serverVersion(name: string): Promise<string> {
  // By the gateway, as clients do: a shard's listener answers nobody else.
  const { body } = await request(`http://127.0.0.1:${await cluster.gatewayPort()}/_matrix/federation/v1/version`, {
    headers: { host: `${name}.localhost` },
  });
  const answer = (await body.json()) as { server: { version: string } };
  return answer.server.version;
}

async function schemaOf(name: string): Promise<number> {
  const { postgres } = JSON.parse(await readFile(join(cluster.dataDir, "controller.json"), "utf8")) as {
    postgres: { host: string; port: number; user: string; passwordFile: string };
  };
  const { host, port, user, passwordFile } = postgres;
  const login = { host, port, user, password: (await readFile(passwordFile, "utf8")).trim() };
  return withConnection(login, tenantDatabaseName(name), async (client) =>
    Number((await client.query("SELECT version FROM schema_version")).rows[0].version),
  );
}

it("a changed version moves the tenant to a shard of it, schema and all, while a client goes on", async () => {
  const user = await newUser(cluster, "clinic-a", "alice");
  const room = (await user.client.createRoom({})).room_id;
  await user.sync();
  expect(await serverVersion("clinic-a")).toBe(OLD);
  const sent: string[] = [];
  let sending = true;
  const sender = (async () => {
    for (let n = 0; sending; n++) {
      await user.client.sendTextMessage(room, `message ${n}`);
      sent.push(`message ${n}`);
      await sleep(50);
    }
  })();
  const { code, stderr } = await cluster.cli("tenant", "update", "clinic-a", "--release", NEW, "--wait");
  expect(code, stderr).toBe(0);
  await sleep(500);
  sending = false;
  await sender;
  user.stop();
  expect(user.failures).toEqual([]);
  expect(await messagesOf(user, room)).toEqual(sent);
  expect(await cluster.tenant("clinic-a")).toMatchObject({ release: NEW, shard: `${NEW}-0`, phase: "Running" });
  expect(await serverVersion("clinic-a")).toBe(NEW);
  expect(await cluster.tenant("clinic-b")).toMatchObject({ release: OLD, shard: `${OLD}-0`, phase: "Running" });
});

it("the last tenant's upgrade stops them", async () => {
  await cluster.cli("tenant", "update", "clinic-b", "--release", NEW, "--wait");
  await until("the old release's shard is gone", async () =>
    (await cluster.shards()).every((shard) => shard.release === NEW),
  );
  expect((await cluster.shards()).map((shard) => shard.name)).toEqual([`${NEW}-0`]);
});

it("a tenant of a release with an older schema is migrated on its way, and keeps what it had", async () => {
  await cluster.createTenant("clinic-c", "--release", OLD_SCHEMA, ...(await withConfig(cluster)));
  const user = await newUser(cluster, "clinic-c", "carol");
  const room = (await user.client.createRoom({})).room_id;
  await user.client.sendTextMessage(room, "written under the old schema");
  const older = await schemaOf("clinic-c");
  const { code, stderr } = await cluster.cli("tenant", "update", "clinic-c", "--release", NEW, "--wait");
  expect(code, stderr).toBe(0);
  expect(await schemaOf("clinic-c")).toBeGreaterThan(older);
  expect(await schemaOf("clinic-c")).toBe(await schemaOf("clinic-a"));
  expect(await serverVersion("clinic-c")).toBe(NEW);
  await user.client.sendTextMessage(room, "written under the new schema");
  expect(await messagesOf(user, room)).toEqual(["written under the old schema", "written under the new schema"]);
});

it("a release that can read the schema is moved back to", async () => {
  const { code, stderr } = await cluster.cli("tenant", "update", "clinic-b", "--release", OLD, "--wait");
  expect(code, stderr).toBe(0);
  expect(await serverVersion("clinic-b")).toBe(OLD);
});

it("the fleet brings a release to the tenants that follow it, and takes it back", async () => {
  const cli = async (...args: string[]) => {
    const { code, stdout, stderr } = await cluster.cli(...args);
    expect(code, stderr).toBe(0);
    return stdout;
  };
  expect((await cluster.cli("tenant", "update", "clinic-b", "--release", "fleet")).stderr).toContain(
    "there is no fleet",
  );
  await cli("fleet", "set", "--release", OLD, "--canary", "clinic-b", "--soak", "0");
  await cli("tenant", "update", "clinic-b", "--release", "fleet", "--wait");
  expect(await serverVersion("clinic-b")).toBe(OLD);
  await cli("fleet", "set", "--release", NEW, "--wait");
  expect(await serverVersion("clinic-b")).toBe(NEW);
  expect(await cluster.tenant("clinic-b")).toMatchObject({ release: NEW, phase: "Running" });
  expect(await cli("fleet", "rollback", "--wait")).toContain(`fleet is back at ${OLD}`);
  expect(await serverVersion("clinic-b")).toBe(OLD);
});

it("a move back to a release that cannot read the schema is refused with the reason, and nothing changes", async () => {
  const before = await cluster.tenant("clinic-a");
  const { code, stderr } = await cluster.cli("tenant", "update", "clinic-a", "--release", ANCIENT);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(new RegExp(`${ANCIENT.replaceAll(".", "\\.")}.*schema`));
  expect(await cluster.tenant("clinic-a")).toEqual(before);
});
