import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { withConfig } from "./support/fixtures.ts";
import { messagesOf, newUser } from "./support/matrix.ts";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({
    maxTenantsPerShard: 2,
    avgShardsLoadRedistributionThreshold: 0,
    shardLostAfterSeconds: 3,
  });
  const config = await withConfig(cluster);
  for (const name of ["t1", "t2", "t3"]) await cluster.createTenant(name, ...config);
  await cluster.cli("tenant", "delete", "t2", "--wait");
});
afterAll(() => cluster?.destroy());

it("a shard that was stopped by SIGSTOP, lost its tenant and is continued cannot write, and drops it", async () => {
  const user = await newUser(cluster, "t1", "alice");
  const room = (await user.client.createRoom({})).room_id;
  const { shard: old } = await cluster.tenant("t1");
  const oldAddress = ((await cluster.api("GET", "/v1/tenants/t1")).body as { status: { address: string } }).status
    .address;
  const { routes } = JSON.parse(await readFile(join(cluster.dataDir, "routes.json"), "utf8")) as {
    routes: { tenant: string; secret: string }[];
  };
  const { secret } = routes.find(({ tenant }) => tenant === "t1")!;
  const acknowledged: string[] = [];
  let sending = true;
  // Straight at the old shard's listener, past the gateway: what a client of a partitioned process would do.
  const direct = async (n: number) => {
    const response = await fetch(
      `http://${oldAddress}/_matrix/client/v3/rooms/${encodeURIComponent(room)}/send/m.room.message/direct-${n}`,
      {
        method: "PUT",
        headers: {
          authorization: `Bearer ${user.client.getAccessToken()}`,
          "content-type": "application/json",
          "x-synapse-shards-secret": secret,
        },
        body: JSON.stringify({ msgtype: "m.text", body: `direct ${n}` }),
        signal: AbortSignal.timeout(60_000),
      },
    );
    if (response.status === 200) acknowledged.push(`direct ${n}`);
  };
  let n = 0;
  const senders = Array.from({ length: 4 }, async () => {
    while (sending) {
      await direct(n++).catch(() => {});
      await sleep(5);
    }
  });
  await sleep(1_000);
  const pid = await cluster.shardPid(old!);
  process.kill(pid, "SIGSTOP");
  let newShard: string | null;
  try {
    newShard = await until("t1 runs elsewhere", async () => {
      const row = await cluster.tenant("t1");
      return row.phase === "Running" && row.shard !== old && row.shard;
    });
    await user.client.sendTextMessage(room, "by the new owner");
  } finally {
    process.kill(pid, "SIGCONT");
  }
  const atTakeover = await messagesOf(user, room);
  await sleep(3_000);
  sending = false;
  await Promise.all(senders);
  const after = await messagesOf(user, room);
  expect(after).toEqual(atTakeover);
  for (const body of acknowledged)
    expect(
      after.filter((b) => b === body),
      body,
    ).toHaveLength(1);
  expect((await cluster.shards()).find((shard) => shard.name === newShard)).toMatchObject({ phase: "Ready" });
  await until("the old shard has dropped it", async () => {
    const { tenants } = (await cluster.shardState(old!)) as { tenants: { name: string; phase: string }[] };
    return !tenants.some((t) => t.name === "t1" && t.phase !== "fenced");
  });
  await until(
    "the old shard takes tenants again",
    async () => (await cluster.shards()).find((shard) => shard.name === old)?.phase === "Ready",
  );
  expect((await cluster.tenant("t3")).phase).toBe("Running");
});
