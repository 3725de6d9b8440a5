import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { withConfig } from "./support/fixtures.ts";
import { logIn, messagesOf, newUser } from "./support/matrix.ts";

let cluster: Cluster;
let tlsPort: number;
beforeAll(async () => {
  cluster = await Cluster.start({
    maxTenantsPerShard: 1,
    maxShardsPerSynapseImageTag: 3,
    avgShardsLoadRedistributionThreshold: 0,
  });
  tlsPort = await cluster.gatewayPort("https");
  const config = await withConfig(cluster);
  await cluster.createTenant("clinic-a", "--server-name", `clinic-a.localhost:${tlsPort}`, ...config);
  await cluster.createTenant("clinic-b", "--server-name", `clinic-b.localhost:${tlsPort}`, ...config);
});
afterAll(() => cluster?.destroy());

it("two tenants on different shards invite, join and talk over TLS with their own keys, also while one of them moves", async () => {
  const [a, b] = [await cluster.tenant("clinic-a"), await cluster.tenant("clinic-b")];
  expect(a.shard).not.toBe(b.shard);
  const alice = await newUser(cluster, "clinic-a", "alice");
  const bob = await newUser(cluster, "clinic-b", "bob");
  await Promise.all([alice.sync(), bob.sync()]);
  const { room_id: room } = await alice.client.createRoom({ preset: "private_chat" as never });
  const [aliceHears, bobHears] = [alice.listen(room), bob.listen(room)];
  await alice.client.invite(room, `@bob:clinic-b.localhost:${tlsPort}`);
  await expect.poll(() => bob.client.getRoom(room)?.getMyMembership()).toBe("invite");
  await bob.client.joinRoom(room);
  await alice.client.sendTextMessage(room, "from a");
  await bob.client.sendTextMessage(room, "from b");
  await expect.poll(() => bobHears).toContain("from a");
  await expect.poll(() => aliceHears).toContain("from b");

  let rounds = 0;
  let sending = true;
  const sender = (async () => {
    for (let n = 0; sending; n++) {
      await alice.client.sendTextMessage(room, `a ${n}`);
      await bob.client.sendTextMessage(room, `b ${n}`);
      rounds = n + 1;
      await sleep(50);
    }
  })();
  for (let n = 0; n < 3; n++) {
    expect((await cluster.move("clinic-b")).failedRequests).toBe(0);
    await sleep(500);
  }
  sending = false;
  await sender;
  // Each hears all of the other, once and in order; and both servers have the same in the end.
  const from = (who: string) => [`from ${who}`, ...Array.from({ length: rounds }, (_, n) => `${who} ${n}`)];
  const of = (who: string, bodies: string[]) =>
    bodies.filter((body) => body === `from ${who}` || body.startsWith(`${who} `));
  await expect.poll(() => of("b", aliceHears), { interval: 500 }).toEqual(from("b"));
  await expect.poll(() => of("a", bobHears), { interval: 500 }).toEqual(from("a"));
  const [onA, onB] = [await messagesOf(alice, room), await messagesOf(bob, room)];
  expect(onA.toSorted()).toEqual([...from("a"), ...from("b")].toSorted());
  expect(onB.toSorted()).toEqual(onA.toSorted());
  expect([...alice.failures, ...bob.failures]).toEqual([]);
  alice.stop();
  bob.stop();
});

it("a suspended tenant tells its clients so and logs nobody out; what another server has for it arrives when it is resumed", async () => {
  const alice = await newUser(cluster, "clinic-a", "anna");
  const bob = await newUser(cluster, "clinic-b", "ben");
  const { room_id: room } = await alice.client.createRoom({ invite: [`@ben:clinic-b.localhost:${tlsPort}`] });
  await until("ben joins", () => bob.client.joinRoom(room));
  expect((await cluster.cli("tenant", "suspend", "clinic-b", "--wait")).code).toBe(0);
  expect(await cluster.tenant("clinic-b")).toMatchObject({ phase: "Suspended", shard: null });
  // Under a host that the gateway never heard of: not from its memory.
  const asked = { headers: { host: "clinic-b.localhost:1" } };
  const answerOf = async (path: string) =>
    (await request(`http://127.0.0.1:${await cluster.gatewayPort()}${path}`, asked)).body.json();
  expect(await answerOf("/_matrix/key/v2/server")).toMatchObject({
    server_name: `clinic-b.localhost:${tlsPort}`,
    verify_keys: expect.any(Object) as object,
  });
  expect(await answerOf("/.well-known/matrix/client")).toHaveProperty(["m.homeserver", "base_url"]);
  const refused = { httpStatus: 403, errcode: "M_RESOURCE_LIMIT_EXCEEDED" };
  await expect(bob.client.whoami()).rejects.toMatchObject(refused);
  await expect(logIn(cluster, "clinic-b", "ben")).rejects.toMatchObject(refused);
  await alice.client.sendTextMessage(room, "while it was suspended");
  // The other server has tried, and been refused.
  const shard = (await cluster.tenant("clinic-a")).shard ?? "";
  await until("the other server is refused", async () =>
    (await cluster.cli("shard", "logs", shard, "--tail", "100000")).stdout.includes(
      "Received 403 response to transaction",
    ),
  );
  expect((await cluster.cli("tenant", "resume", "clinic-b", "--wait")).code).toBe(0);
  // Nobody gave up: the next message brings the one before along, with no wait for a back-off to end.
  await alice.client.sendTextMessage(room, "afterwards");
  await until("both arrive", async () => {
    const bodies = await messagesOf(bob, room);
    return bodies.includes("while it was suspended") && bodies.includes("afterwards");
  });
  expect(await bob.client.whoami()).toMatchObject({ user_id: `@ben:clinic-b.localhost:${tlsPort}` });
});
