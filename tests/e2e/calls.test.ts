import { spawn, type ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Agent, request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freePort } from "../support/free-port.ts";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { UNLIMITED, withConfig } from "./support/fixtures.ts";
import { newUser, type TestUser } from "./support/matrix.ts";

/**
 * What Element Call asks a homeserver, and what the service that admits people to its media server does. `LK_JWT_SERVICE` is a program of
 * lk-jwt-service, which then is asked itself; otherwise what it asks is asked in its place.
 */
const SERVICE = process.env["LK_JWT_SERVICE"];
const MEMBER = "org.matrix.msc3401.call.member";
const UNSTABLE = "/_matrix/client/unstable";
const DELAYED = `${UNSTABLE}/org.matrix.msc4140/delayed_events`;
const LEAVE_MS = 20_000;

let cluster: Cluster;
let authority: Agent;
/** Of the homeserver, as the service reaches it: its server name is where it is. */
let serverName: string;
let transport: { type: string; livekit_service_url: string };
let alice: TestUser;
let room: string;
const started: ChildProcess[] = [];

beforeAll(async () => {
  cluster = await Cluster.start({});
  serverName = `localhost:${await cluster.gatewayPort("https")}`;
  authority = new Agent({ connect: { ca: await readFile(join(cluster.dataDir, "ca.crt"), "utf8") } });
  transport = { type: "livekit", livekit_service_url: `http://127.0.0.1:${await freePort()}` };
  const config = await withConfig(cluster, {
    ...UNLIMITED,
    max_event_delay_duration: "24h",
    matrix_rtc: { transports: [transport] },
    extra_well_known_client_content: { "org.matrix.msc4143.rtc_foci": [transport] },
    experimental_features: { msc4143_enabled: true, msc4222_enabled: true },
  });
  await cluster.createTenant("clinic", "--server-name", serverName, ...config);
  alice = await newUser(cluster, "clinic", "alice");
  ({ room_id: room } = await alice.client.createRoom({ preset: "private_chat" as never }));
});
afterAll(async () => {
  for (const child of started) child.kill();
  await authority?.close();
  await cluster?.destroy();
});

interface Answer {
  status: number;
  body: any;
}

async function ask(method: "GET" | "POST" | "PUT", path: string, body?: object, token = ""): Promise<Answer> {
  const url = path.startsWith("http") ? path : `https://${serverName}${path}`;
  const answer = await request(url, {
    method,
    dispatcher: authority,
    headers: { ...(token === "" ? {} : { authorization: `Bearer ${token}` }), "content-type": "application/json" },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  return { status: answer.statusCode, body: await answer.body.json() };
}
const asAlice = (method: "GET" | "POST" | "PUT", path: string, body?: object) =>
  ask(method, path, body, alice.client.getAccessToken()!);

const openIdToken = async () =>
  (
    await asAlice(
      "POST",
      `/_matrix/client/v3/user/${encodeURIComponent(alice.client.getUserId()!)}/openid/request_token`,
      {},
    )
  ).body as { access_token: string; matrix_server_name: string };

async function sleepNow(): Promise<void> {
  await until("the tenant sleeps", async () => {
    const { code, stderr } = await cluster.cli("tenant", "sleep", "clinic", "--wait");
    if (code !== 0) throw new Error(stderr);
    return true;
  });
}
const memberships = async () =>
  ((await asAlice("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/state`)).body as any[]).filter(
    ({ type }) => type === MEMBER,
  );

it("clients find the media server's service: in the well-known file, and among the transports that the homeserver tells its users", async () => {
  const { body } = await ask("GET", "/.well-known/matrix/client");
  expect(body["org.matrix.msc4143.rtc_foci"]).toEqual([transport]);
  const transports = `${UNSTABLE}/org.matrix.msc4143/rtc/transports`;
  expect(await asAlice("GET", transports)).toEqual({ status: 200, body: { rtc_transports: [transport] } });
  expect((await ask("GET", transports)).status).toBe(401);
  const { body: versions } = await ask("GET", "/_matrix/client/versions");
  expect(versions.unstable_features).toMatchObject({ "org.matrix.msc4140": true });
});

it("the service learns from an OpenID token who somebody is, also while the homeserver moves and when it sleeps", async () => {
  const token = await openIdToken();
  const whoIs = (text: string) => ask("GET", `/_matrix/federation/v1/openid/userinfo?access_token=${text}`);
  const asked = { status: 200, body: { sub: alice.client.getUserId() } };
  expect(await whoIs(token.access_token)).toEqual(asked);
  const [moved, meanwhile] = await Promise.all([cluster.move("clinic"), whoIs(token.access_token)]);
  expect([moved.failedRequests, meanwhile]).toEqual([0, asked]);
  await sleepNow();
  expect(await whoIs(token.access_token)).toEqual(asked);
  expect((await whoIs("another")).status).toBe(401);
});

it("somebody whose client is gone leaves the call at their time: over a move, a sleep, and a word that they are still there", async () => {
  const state = `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/state/${MEMBER}/_alice_DEVICE`;
  await asAlice("PUT", state, { application: "m.call", call_id: "", foci_preferred: [transport] });
  const delayed = await asAlice("PUT", `${state}?org.matrix.msc4140.delay=${LEAVE_MS}`, {});
  expect(delayed.status).toBe(200);
  const { delay_id } = delayed.body as { delay_id: string };

  expect(await cluster.move("clinic")).toMatchObject({ failedRequests: 0 });
  expect((await asAlice("GET", DELAYED)).body.delayed_events).toMatchObject([{ delay_id, delay: LEAVE_MS }]);
  await sleepNow();
  const { body: asleep } = await cluster.api("GET", "/v1/tenants/clinic");
  expect(asleep).toMatchObject({ status: { sleep: { nextWake: { reason: "a delayed event" } } } });

  // As the service does it in the name of a client: without an access token.
  const restarted = await ask("POST", `${DELAYED}/${delay_id}/restart`, {});
  const until20 = Date.now() + LEAVE_MS;
  expect(restarted.status).toBe(200);
  await sleepNow();
  await until("it is woken by the time", async () => (await cluster.tenant("clinic")).phase === "Running");
  await until("the member has left", async () => Object.keys((await memberships())[0].content).length === 0);
  expect(Date.now()).toBeGreaterThanOrEqual(until20 - 1_000);
  expect((await asAlice("GET", DELAYED)).body.delayed_events).toEqual([]);
});

it.runIf(SERVICE)("lk-jwt-service lets a tenant's user in, and nobody with another token", async () => {
  const url = transport.livekit_service_url;
  const child = spawn(SERVICE!, {
    stdio: ["ignore", "ignore", "inherit"],
    env: {
      LIVEKIT_URL: "ws://127.0.0.1:9",
      LIVEKIT_KEY: "key-of-the-tests",
      LIVEKIT_SECRET: "secret-of-the-tests-which-is-long-enough",
      LIVEKIT_FULL_ACCESS_HOMESERVERS: "elsewhere.example",
      LIVEKIT_JWT_BIND: new URL(url).host,
      LIVEKIT_LOG_LEVEL: "warn",
      SSL_CERT_FILE: join(cluster.dataDir, "ca.crt"),
    },
  });
  started.push(child);
  await until("the service listens", async () => (await request(`${url}/healthz`)).statusCode === 200);
  const claims = (jwt: string) => JSON.parse(Buffer.from(jwt.split(".")[1]!, "base64url").toString());

  const before = await ask("POST", `${url}/sfu/get`, { room, openid_token: await openIdToken(), device_id: "DEVICE" });
  expect(before.status).toBe(200);
  expect(claims(before.body.jwt)).toMatchObject({ iss: "key-of-the-tests", video: { roomJoin: true } });

  const member = { id: "one", claimed_user_id: alice.client.getUserId(), claimed_device_id: "DEVICE" };
  const wanted = { room_id: room, slot_id: "m.call#ROOM", member };
  const token = await openIdToken();
  await sleepNow();
  const woken = await ask("POST", `${url}/get_token`, { ...wanted, openid_token: token });
  expect([woken.status, claims(woken.body.jwt).video.room]).toEqual([200, claims(before.body.jwt).video.room]);
  for (const [who, claimed] of [
    [{ ...token, access_token: "another" }, member],
    [token, { ...member, claimed_user_id: `@bob:${serverName}` }],
  ])
    expect((await ask("POST", `${url}/get_token`, { ...wanted, member: claimed, openid_token: who })).status).toBe(401);
});
