import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { listTenantDatabases } from "../../src/database/tenant-database.ts";
import { startTestServer, type TestServer } from "../database/postgres-server.ts";
import { Cluster } from "./support/cluster.ts";
import { withConfig } from "./support/fixtures.ts";
import { logIn, messagesOf, newUser } from "./support/matrix.ts";
import { runNio } from "./support/nio.ts";

let cluster: Cluster;
let second: TestServer;
let directory: string;
beforeAll(async () => {
  second = await startTestServer();
  directory = await mkdtemp(join(tmpdir(), "shards-second-server-"));
  const passwordFile = join(directory, "password");
  const { host, port, user, password } = second.admin;
  await writeFile(passwordFile, password);
  const databaseServers = [{ name: "db-2", host, port, user, passwordFile, sslMode: "disable", weight: 0 }];
  cluster = await Cluster.start({
    maxTenantsPerShard: 3,
    avgShardsLoadRedistributionThreshold: 0,
    databaseServers,
  });
  const config = await withConfig(cluster);
  await cluster.createTenant("clinic-a", ...config);
  await cluster.createTenant("clinic-b", ...config);
});
afterAll(async () => {
  await cluster?.destroy();
  await second?.stop();
  await rm(directory, { recursive: true, force: true });
});

const MOVES = 20;

it("none of two real clients sees a failed request, a lost or doubled event, or a logout in 20 moves", async () => {
  const user = await newUser(cluster, "clinic-a", "alice");
  const { room_id: roomId } = await user.client.createRoom({ preset: "private_chat" as never });
  // Her second device: what she sent comes to it by sync alone.
  const watcher = await logIn(cluster, "clinic-a", "alice");
  const heard = watcher.listen(roomId);
  await Promise.all([user.sync(), watcher.sync()]);
  const { user_id: userId } = await user.client.whoami();
  const nio = runNio(await cluster.gatewayPort(), "clinic-a.localhost", "bob", cluster);
  await nio.ready;

  const sent: string[] = [];
  let sending = true;
  const sender = (async () => {
    for (let n = 0; sending; n++) {
      await user.client.sendTextMessage(roomId, `message ${n}`);
      sent.push(`message ${n}`);
      await sleep(20);
    }
  })();
  const moves = [];
  for (let n = 0; n < MOVES; n++) {
    moves.push(await cluster.move("clinic-a"));
    await sleep(200);
  }
  sending = false;
  await sender;

  for (const move of moves)
    expect(move).toMatchObject({ from: expect.any(String), to: expect.any(String), failedRequests: 0 });
  expect(moves.filter((move) => move.from === move.to)).toEqual([]);
  expect([...user.failures, ...watcher.failures]).toEqual([]);
  expect(sent.length).toBeGreaterThan(MOVES);
  expect(await messagesOf(user, roomId)).toEqual(sent);
  await expect.poll(() => heard.length).toBe(sent.length);
  expect(heard).toEqual(sent);
  expect(await user.client.whoami()).toMatchObject({ user_id: userId });
  expect(await watcher.client.whoami()).toMatchObject({ user_id: userId });
  user.stop();
  watcher.stop();

  const other = await nio.stop();
  expect(other.errors).toEqual([]);
  expect(other.sent.length).toBeGreaterThan(MOVES);
  expect(other.heard).toEqual(other.sent);
  expect(moves.reduce((sum, move) => sum + move.parkedRequests, 0)).toBeGreaterThan(0);
  const blackouts = moves.map((move) => move.blackoutSeconds).toSorted((a, b) => a - b);
  console.info(`blackout of ${MOVES} moves: median ${blackouts[MOVES / 2]} s, longest ${blackouts.at(-1)} s`);
});

it("a client that sends sees no failed request while the database is moved to another server and back", async () => {
  const user = await newUser(cluster, "clinic-b", "erin");
  const { room_id: roomId } = await user.client.createRoom({ preset: "private_chat" as never });
  await user.sync();
  const sent: string[] = [];
  let sending = true;
  const sender = (async () => {
    for (let n = 0; sending; n++) {
      await user.client.sendTextMessage(roomId, `message ${n}`);
      sent.push(`message ${n}`);
      await sleep(20);
    }
  })();
  for (const [to, way] of [
    ["db-2", "--parked"],
    ["main", "--parked"],
    ["db-2", "--online"],
    ["main", "--online"],
  ] as const) {
    const { code, stdout, stderr } = await cluster.cli("tenant", "move-database", "clinic-b", "--to", to, way);
    expect(code, stderr).toBe(0);
    console.info(stdout.trim());
    expect(await listTenantDatabases(second.admin)).toEqual(to === "db-2" ? ["tenant_clinic_b"] : []);
    const before = sent.length;
    await expect.poll(() => sent.length).toBeGreaterThan(before + 3);
  }
  sending = false;
  await sender;
  expect(user.failures).toEqual([]);
  expect(await messagesOf(user, roomId)).toEqual(sent);
  user.stop();
});

it("unknown, same and full targets are refused with the reason, and nothing moves", async () => {
  const { shard, epoch } = await cluster.tenant("clinic-a");
  const unknown = await cluster.cli("tenant", "move", "clinic-a", "--to", "1.163.2-99");
  expect(unknown.code).not.toBe(0);
  expect(unknown.stderr).toContain("there is no shard 1.163.2-99");
  const same = await cluster.cli("tenant", "move", "clinic-a", "--to", shard!);
  expect(same.code).not.toBe(0);
  expect(same.stderr).toContain(`is on shard ${shard} already`);
  const nobody = await cluster.cli("tenant", "move", "nobody");
  expect(nobody.stderr).toContain("there is no tenant nobody");
  expect(await cluster.tenant("clinic-a")).toMatchObject({ shard, epoch, phase: "Running" });
});

it("a changed one is taken up on the same shard, without a failed request", async () => {
  const user = await newUser(cluster, "clinic-b", "carol");
  const before = await cluster.tenant("clinic-b");
  const asking = { go: true };
  const asker = (async () => {
    while (asking.go) {
      await user.client.whoami();
      await sleep(10);
    }
  })();
  const config = await withConfig(cluster, { enable_set_displayname: false });
  const { code, stderr } = await cluster.cli("tenant", "update", "clinic-b", ...config, "--wait");
  expect(code, stderr).toBe(0);
  asking.go = false;
  await asker;
  expect(user.failures).toEqual([]);
  await expect(user.client.setDisplayName("Carol")).rejects.toThrow(/Changing display name is disabled/);
  expect(await cluster.tenant("clinic-b")).toMatchObject({
    shard: before.shard,
    epoch: before.epoch + 1,
    phase: "Running",
  });
});

it("a configuration with a mistake is refused with the reason, and the tenant runs on with the former one", async () => {
  const user = await newUser(cluster, "clinic-b", "dora");
  const before = await cluster.tenant("clinic-b");
  const bad = await withConfig(cluster, { media_retention: { local_media_lifetime: "soon" } });
  const { code, stderr } = await cluster.cli("tenant", "update", "clinic-b", ...bad, "--wait");
  expect(code).not.toBe(0);
  expect(stderr).toMatch(/local_media_lifetime/);
  await user.client.whoami();
  expect(await cluster.tenant("clinic-b")).toMatchObject({
    phase: "Running",
    reason: "InvalidConfig",
    epoch: before.epoch,
  });
  const mended = await cluster.cli("tenant", "update", "clinic-b", ...(await withConfig(cluster)), "--wait");
  expect(mended.code, mended.stderr).toBe(0);
  expect(await cluster.tenant("clinic-b")).toMatchObject({ phase: "Running", reason: null });
  expect(user.failures).toEqual([]);
});
