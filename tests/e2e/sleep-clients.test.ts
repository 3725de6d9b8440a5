import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { read, slide, withCrypto } from "./support/crypto-clients.ts";
import { withConfig } from "./support/fixtures.ts";
import { newUser } from "./support/matrix.ts";
import { runNio } from "./support/nio.ts";

const POLL_MS = 1_500;
const ROUNDS = 2;

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ avgShardsLoadRedistributionThreshold: 0 });
  await cluster.createTenant("clinic-a", ...(await withConfig(cluster)));
});
afterAll(() => cluster?.destroy());

/** Asks until nobody has used it for long enough. */
async function fallAsleep(): Promise<void> {
  await until("it is asleep", async () => {
    const { code, stderr } = await cluster.cli("tenant", "sleep", "clinic-a", "--wait");
    if (code !== 0) throw new Error(stderr);
    return true;
  });
}

async function gatewayMetric(series: string): Promise<number> {
  const ready = JSON.parse(await readFile(join(cluster.dataDir, "gateway.ready.json"), "utf8")) as { metrics: string };
  const text = await (await fetch(`${ready.metrics}/metrics`)).text();
  const line = text.split("\n").find((one) => one.startsWith(`synapse_shards_gateway_${series} `));
  return Number(line?.split(" ").at(-1) ?? Number.NaN);
}

it("keeps three real clients polling without being woken, and nothing is lost, sent twice or logged out when it is", async () => {
  const alice = await withCrypto(await newUser(cluster, "clinic-a", "alice"));
  const bob = await withCrypto(await newUser(cluster, "clinic-a", "bob"));
  const { room_id: roomId } = await alice.client.createRoom({
    preset: "private_chat" as never,
    invite: [bob.client.getSafeUserId()],
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
  });
  await bob.client.joinRoom(roomId);
  const heard = [read(alice, roomId), read(bob, roomId)];
  await alice.sync(POLL_MS);
  const endSliding = await slide(bob, roomId, POLL_MS);
  const nio = runNio(await cluster.gatewayPort(), "clinic-a.localhost", "carol", cluster, POLL_MS);
  await nio.ready;

  // Of the other one, as its own come back to no client.
  const expected: [string[], string[]] = [[], []];
  let fromMemory = 0;
  let attempts = 0;
  for (let round = 0; round < ROUNDS; round++) {
    fromMemory += await until("it stays asleep while clients poll", async () => {
      attempts += 1;
      // On a busy machine a client may not have asked yet for what came last, or have more to say of its keys: that wakes it, as it should.
      await sleep(2 * POLL_MS);
      await fallAsleep();
      const before = await gatewayMetric('memory_answers_total{what="poll"}');
      await sleep(3 * POLL_MS);
      expect(await cluster.tenant("clinic-a")).toMatchObject({ phase: "Asleep" });
      return (await gatewayMetric('memory_answers_total{what="poll"}')) - before;
    });
    const body = `round ${round}`;
    await [alice, bob][round % 2]!.client.sendTextMessage(roomId, body);
    expected[round % 2 === 0 ? 1 : 0].push(body);
    await nio.send();
    await expect.poll(() => heard).toEqual(expected);
  }
  // Of each client, in each round, one at least.
  expect(fromMemory).toBeGreaterThanOrEqual(3 * ROUNDS);
  expect(attempts).toBeLessThanOrEqual(ROUNDS + 2);
  // Whether there is a backup of keys; "none" is a good answer.
  const failures = [...alice.failures, ...bob.failures].filter(({ path }) => !path.endsWith("/room_keys/version"));
  expect(failures).toEqual([]);
  for (const user of [alice, bob])
    expect(await user.client.whoami()).toMatchObject({ user_id: user.client.getUserId() });
  const report = await nio.stop();
  expect(report.errors).toEqual([]);
  expect(report.sent).toHaveLength(ROUNDS);
  expect(report.heard).toEqual(report.sent);
  endSliding();
  alice.stop();
  bob.stop();
});
