import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { UNLIMITED, withConfig } from "./support/fixtures.ts";
import { messagesOf, newUser, type TestUser } from "./support/matrix.ts";

let cluster: Cluster;
let tlsPort: number;
let alice: TestUser;
let bob: TestUser;
let room: string;

beforeAll(async () => {
  cluster = await Cluster.start({});
  tlsPort = await cluster.gatewayPort("https");
  const config = await withConfig(cluster, { ...UNLIMITED, max_event_delay_duration: "1h" });
  for (const name of ["clinic-a", "clinic-b"])
    await cluster.createTenant(name, "--server-name", `${name}.localhost:${tlsPort}`, ...config);
  alice = await newUser(cluster, "clinic-a", "alice");
  bob = await newUser(cluster, "clinic-b", "bob");
  ({ room_id: room } = await alice.client.createRoom({ invite: [`@bob:clinic-b.localhost:${tlsPort}`] }));
  await until("bob joins", () => bob.client.joinRoom(room));
});
afterAll(() => cluster?.destroy());

/** Puts it to sleep as soon as it owes nothing to anybody. */
async function putToSleep(name: string): Promise<void> {
  await until(`${name} sleeps`, async () => {
    const { code, stderr } = await cluster.cli("tenant", "sleep", name, "--wait");
    if (code !== 0) throw new Error(stderr);
    return true;
  });
}

it("a tenant that sleeps holds no place and no connection, and a request wakes it and is answered", async () => {
  const stats = async () => (await cluster.shardStats("1.163.2-0")) as { databaseConnections?: number };
  await putToSleep("clinic-a");
  await putToSleep("clinic-b");
  expect(await cluster.tenant("clinic-a")).toMatchObject({ phase: "Asleep", shard: null });
  expect(await cluster.shards()).toMatchObject([{ tenants: 0 }]);
  expect(await cluster.shardState("1.163.2-0")).toMatchObject({ tenants: [] });
  expect((await stats()).databaseConnections).toBe(0);
  const { stdout } = await cluster.cli("tenant", "describe", "clinic-a");
  expect(stdout).toMatch(/Asleep: +since .*Requested/);
  expect(stdout).toMatch(/Wakes: +.*its daily housekeeping/);

  const begun = performance.now();
  expect(await alice.client.whoami()).toMatchObject({ user_id: alice.client.getUserId() });
  const seconds = (performance.now() - begun) / 1000;
  expect(await cluster.tenant("clinic-a")).toMatchObject({ phase: "Running", shard: "1.163.2-0" });
  process.stdout.write(`woken and answered in ${seconds.toFixed(2)} s\n`);
  expect(alice.failures).toEqual([]);
});

it("a delayed event is sent at its time by a tenant that slept until then", async () => {
  const delay = 20_000;
  const path = `/rooms/${encodeURIComponent(room)}/send/m.room.message/late`;
  await alice.client.http.authedRequest(
    "PUT" as never,
    path,
    { "org.matrix.msc4140.delay": String(delay) },
    { msgtype: "m.text", body: "late" },
  );
  const due = Date.now() + delay;
  await putToSleep("clinic-a");
  const { body } = await cluster.api("GET", "/v1/tenants/clinic-a");
  expect(body).toMatchObject({ status: { sleep: { nextWake: { reason: "a delayed event" } } } });
  await until("it is woken by the time", async () => (await cluster.tenant("clinic-a")).phase === "Running");
  expect(await cluster.api("GET", "/v1/tenants/clinic-a")).toMatchObject({
    body: { status: { awake: { reason: "due" } } },
  });
  await until("it is sent", async () => (await messagesOf(alice, room)).includes("late"));
  expect(Date.now()).toBeGreaterThanOrEqual(due - 1_000);
});

it("what is sent to a server that sleeps wakes it, and arrives", async () => {
  await putToSleep("clinic-b");
  await alice.client.sendTextMessage(room, "to a sleeper");
  await until("it is woken by federation", async () => (await cluster.tenant("clinic-b")).phase === "Running");
  expect(await cluster.api("GET", "/v1/tenants/clinic-b")).toMatchObject({
    body: { status: { awake: { reason: "federation" } } },
  });
  await until("it arrives", async () => (await messagesOf(bob, room)).includes("to a sleeper"));
});
