import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { withConfig } from "./support/fixtures.ts";
import { downloadMedia, logIn, messagesOf, newUser } from "./support/matrix.ts";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({
    maxTenantsPerShard: 2,
    maxShardsPerSynapseImageTag: 2,
    avgShardsLoadRedistributionThreshold: 2,
    consolidateAfterSeconds: 3,
  });
});
afterAll(() => cluster?.destroy());

async function loads(): Promise<Record<string, number>> {
  return Object.fromEntries((await cluster.shards()).map((shard) => [shard.name, shard.tenants]));
}

it("tenants fill a shard before another is made", async () => {
  await cluster.createTenant("t1");
  expect(await loads()).toEqual({ "1.163.2-0": 1 });
  await cluster.createTenant("t2");
  expect(await loads()).toEqual({ "1.163.2-0": 2 });
  await cluster.createTenant("t3");
  expect(await loads()).toEqual({ "1.163.2-0": 2, "1.163.2-1": 1 });
  await cluster.createTenant("t4");
  expect(await loads()).toEqual({ "1.163.2-0": 2, "1.163.2-1": 2 });
});

it("a tenant without a place is Pending with the reason in CLI, API and metrics, waits alone, and is placed automatically", async () => {
  const waiting = await cluster.cli("tenant", "create", "t5");
  expect(waiting.code, waiting.stderr).toBe(0);
  await until("t5 is Pending", async () => (await cluster.tenant("t5")).reason === "MaxShardsReached");
  expect(await cluster.tenant("t5")).toMatchObject({ phase: "Pending", reason: "MaxShardsReached", shard: null });
  const { body } = await cluster.api("GET", "/v1/tenants/t5");
  expect(body).toMatchObject({
    status: { phase: "Pending", reason: "MaxShardsReached", message: expect.stringMatching(/2 /) },
  });
  const metrics = String((await cluster.api("GET", "/metrics")).body);
  expect(metrics).toMatch(/synapse_shards_controller_saturated\{image_tag="1\.163\.2"\} 1/);
  expect(metrics).toMatch(
    /synapse_shards_controller_tenants\{image_tag="1\.163\.2",phase="Pending",reason="MaxShardsReached",hosting="shard"\} 1/,
  );
  const events = await cluster.cli("events", "--for", "tenant/t5");
  expect(events.stdout).toContain("MaxShardsReached");

  // Nothing else waits for it: a tenant of another release is served meanwhile.
  await cluster.createTenant("other", "--release", "1.157.2");
  expect(await cluster.tenant("other")).toMatchObject({ phase: "Running", shard: "1.157.2-0" });

  expect((await cluster.cli("tenant", "delete", "t4", "--wait")).code).toBe(0);
  await until("t5 runs", async () => (await cluster.tenant("t5")).phase === "Running");
  expect(await cluster.tenant("t5")).toMatchObject({ reason: null, shard: "1.163.2-1" });
  await until(
    "the metric falls",
    async () =>
      !/_tenants\{.*reason="MaxShardsReached".*\} [1-9]/.test(String((await cluster.api("GET", "/metrics")).body)),
  );
});

it("data is kept and said to be kept, found again, and removed only by a purge, which leaves a proof", async () => {
  const user = await newUser(cluster, "t5", "dora");
  const { room_id: room } = await user.client.createRoom({});
  await user.client.sendTextMessage(room, "to be kept");
  const upload = await user.client.uploadContent(Buffer.from("a picture"), { type: "text/plain" });
  const deleted = await cluster.cli("tenant", "delete", "t5", "--wait");
  expect(deleted.stdout).toMatch(/database and media are kept/);
  expect((await cluster.tenants()).map((row) => row.name)).not.toContain("t5");
  const gone = await user.client.whoami().catch((error: unknown) => error);
  expect(gone).toMatchObject({ httpStatus: 404, errcode: "M_NOT_FOUND" });

  const foreign = await cluster.cli("tenant", "create", "t5", "--server-name", "somebody-else.localhost");
  expect(foreign.code).not.toBe(0);
  expect(foreign.stderr).toContain("are kept");

  await cluster.createTenant("t5");
  const again = await logIn(cluster, "t5", "dora");
  expect(await messagesOf(again, room)).toEqual(["to be kept"]);
  expect(await downloadMedia(again, upload.content_uri)).toBe("a picture");

  await cluster.cli("tenant", "delete", "t5", "--wait");
  expect((await cluster.cli("tenant", "list", "--deleted")).stdout).toMatch(/t5 +t5\.localhost /);
  expect((await cluster.cli("tenant", "undelete", "t5", "--wait")).stdout).toContain("runs again");
  expect(await messagesOf(again, room)).toEqual(["to be kept"]);
  expect(await downloadMedia(again, upload.content_uri)).toBe("a picture");

  await cluster.cli("tenant", "delete", "t5", "--wait");
  const purged = await cluster.cli("tenant", "purge", "t5", "--yes", "-o", "json");
  const [proof] = JSON.parse(purged.stdout) as { removed: { database: { bytes: number }; media: { files: number } } }[];
  expect(proof).toMatchObject({ serverName: "t5.localhost", removed: { signingKey: { sha256: expect.any(String) } } });
  expect(proof?.removed.database.bytes).toBeGreaterThan(1_000_000);
  expect(proof?.removed.media.files).toBeGreaterThan(0);
  await cluster.createTenant("t5", "--server-name", "somebody-else.localhost");
  await expect(logIn(cluster, "t5", "dora")).rejects.toMatchObject({ httpStatus: 403 });
});

it("each is refused with what is wrong and what is allowed", async () => {
  const refused = async (...args: string[]) => {
    const { code, stderr } = await cluster.cli("tenant", "create", ...args);
    expect(code).not.toBe(0);
    return stderr;
  };
  expect(await refused("t1")).toContain("there is a tenant named t1 already");
  expect(await refused("t9", "--server-name", "t1.localhost")).toContain("belongs to tenant t1 already");
  expect(await refused("t9", "--server-name", "t1.localhost:8448")).toContain("belongs to tenant t1 already");
  expect(await refused("Not_A_Label")).toMatch(/DNS label/);
  expect(await refused("t9", "--server-name", "not a name")).toMatch(/server name/);
  expect(await refused("t9", "--release", "0.0.1")).toMatch(/0\.0\.1/);
  const own = {
    database: {
      name: "psycopg2",
      args: { host: "127.0.0.1", port: 5432, dbname: "theirs", user: "x", password: "very-secret" },
    },
  };
  const config = await withConfig(cluster, own);
  await cluster.cli("tenant", "create", "own-1", ...config);
  const second = await refused("own-2", ...config);
  expect(second).toMatch(/database .* belongs to tenant own-1 already/);
  expect(second).not.toContain("very-secret");
  await cluster.cli("tenant", "delete", "own-1", "--wait");
});

it("below the threshold the least loaded is drained and stopped, then nothing moves", async () => {
  await cluster.cli("tenant", "delete", "t5", "--purge", "--yes", "--wait");
  await cluster.cli("tenant", "delete", "t1", "--wait");
  // One tenant is left on each shard: 1 on average, below 2, and both fit on one.
  await until(
    "one shard is left",
    async () => Object.keys(await loads()).filter((name) => name.startsWith("1.163.2")).length === 1,
    90,
  );
  const settled = await cluster.tenants();
  expect(settled.filter((row) => row.release === "1.163.2").map((row) => row.phase)).toEqual(["Running", "Running"]);
  await sleep(10_000);
  const placement = (rows: typeof settled) => rows.map(({ name, shard, epoch }) => ({ name, shard, epoch }));
  expect(placement(await cluster.tenants())).toEqual(placement(settled));
});

it("a dedicated tenant is moved to a process of its own without a failed request, keeps it, and gives it up when it shares again", async () => {
  const { client } = await newUser(cluster, "t2", "dan");
  let done = false;
  const asking = (async () => {
    while (!done) await client.whoami();
  })();
  const dedicated = await cluster.cli("tenant", "update", "t2", "--isolation", "dedicated", "--wait");
  expect(dedicated.code, dedicated.stderr).toBe(0);
  done = true;
  await asking;
  const shardOf = async (name: string) => (await cluster.tenant(name)).shard;
  expect(await shardOf("t2")).not.toBe(await shardOf("t3"));
  await cluster.createTenant("t6");
  expect(await shardOf("t6")).toBe(await shardOf("t3"));
  const { stdout } = await cluster.cli("tenant", "describe", "t2");
  expect(stdout).toContain("dedicated: a shard for it alone");
  await cluster.cli("tenant", "delete", "t6", "--purge", "--yes", "--wait");
  expect((await cluster.cli("tenant", "update", "t2", "--isolation", "shared")).code).toBe(0);
  await until("they share a shard again", async () => (await shardOf("t2")) === (await shardOf("t3")), 90);
  await until(
    "the other is stopped",
    async () => Object.keys(await loads()).filter((name) => name.startsWith("1.163.2")).length === 1,
    90,
  );
});

it("a shard whose tenants are hammered gets another one to shed a tenant to, and says why", async () => {
  const users = [await newUser(cluster, "t2", "eve"), await newUser(cluster, "t3", "fay")];
  const [before] = Object.keys(await loads()).filter((name) => name.startsWith("1.163.2"));
  await cluster.reconfigure({
    maxShardsPerSynapseImageTag: 4,
    consolidateAfterSeconds: 3600,
    // A twentieth of a core, which each of both takes on any machine.
    balancing: { cpuTarget: 0.05, averageSeconds: 1, coolDownSeconds: 600 },
    cpuBudget: { perTenant: 0, databasePerTenant: 0 },
  });
  let isOver = false;
  const hammering = users.flatMap(({ client }) =>
    [1, 2].map(async () => {
      while (!isOver) await client.whoami().catch(() => sleep(100));
    }),
  );
  const shardsOfBoth = async () =>
    (await Promise.all(["t2", "t3"].map((name) => cluster.tenant(name)))).map(({ shard }) => shard);
  try {
    await until("one of both is on another shard", async () => new Set(await shardsOfBoth()).size === 2, 240);
  } finally {
    isOver = true;
    await Promise.all(hammering);
  }
  const moved = (await cluster.tenant("t2")).shard === before ? "t3" : "t2";
  const { body } = await cluster.api("GET", `/v1/tenants/${moved}`);
  expect(body).toMatchObject({ status: { balanced: { from: before } } });
  const { stdout } = await cluster.cli("events", "--for", `tenant/${moved}`);
  expect(stdout).toMatch(new RegExp(`shard ${before} takes \\d+ % of a core, and its target is 5 %`));
}, 400_000);
