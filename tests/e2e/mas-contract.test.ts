import { createServer, type Server } from "node:http";
import { text } from "node:stream/consumers";
import { parse as parseForm } from "node:querystring";
import { request } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { freePort } from "../support/free-port.ts";
import { Cluster } from "./support/cluster.ts";
import contract from "./support/mas-contract.json" with { type: "json" };
import {
  placed,
  shapeOf,
  unplaced,
  type AskedOfTenant,
  type Introspected,
  type Contract,
} from "./support/mas-contract.ts";

/**
 * What a tenant and Matrix Authentication Service say to each other, recorded from release 1.22 of the service by tests/e2e/mas.test.ts. Here the
 * real tenant gets the same, from a server that answers as the service does.
 */
const CONTRACT = contract as unknown as Contract;
const LOGIN = "/_matrix/client/v3/login";

let cluster: Cluster;
let service: Server;
let home: string;
let url: string;
let secret: string;
let serverName: string;
/** By token. */
const sessions = new Map<string, Record<string, unknown>>();
const asked: { shape: Introspected["asked"]; authorization: string | undefined; token: unknown }[] = [];
const listen = () => new Promise<void>((done) => service.listen(Number(new URL(url).port), "127.0.0.1", done));
const places = () => ({ serverName, service: url, home });

beforeAll(async () => {
  url = `http://127.0.0.1:${await freePort()}`;
  service = createServer((incoming, outgoing) => {
    void (async () => {
      const body = await text(incoming);
      const { url: path = "/", headers } = incoming;
      let answer: unknown = { answeredBy: "the service", path };
      if (path === "/.well-known/openid-configuration") answer = unplaced(CONTRACT.metadata, places());
      if (path === "/oauth2/introspect") {
        const { token } = parseForm(body);
        asked.push({ shape: shapeOf({ headers, asked: body }), authorization: headers.authorization, token });
        answer = sessions.get(String(token)) ?? { active: false };
      }
      outgoing.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
    })();
  });
  await listen();
  cluster = await Cluster.start({});
  home = `http://localhost:${await cluster.gatewayPort()}`;
  serverName = `localhost:${await cluster.gatewayPort("https")}`;
  await cluster.createTenant("clinic", "--server-name", serverName, "--mas", url);
  const { stdout } = await cluster.cli("tenant", "authentication", "show", "clinic");
  ({ secret } = (parse(stdout) as { matrix: { secret: string } }).matrix);
});
afterAll(async () => {
  await cluster?.destroy();
  service?.closeAllConnections();
  service?.close();
});

async function ask(
  method: string,
  path: string,
  token?: string,
  body?: unknown,
): Promise<{ status: number; body: any }> {
  const answer = await request(home + path, {
    method: method as "GET" | "POST",
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.statusCode, body: await answer.body.json() };
}

/** Answered without a body. */
const deleteDevice = (device: object) =>
  request(`${home}/_synapse/mas/delete_device`, {
    method: "POST",
    headers: { authorization: `Bearer ${secret}`, "content-type": "application/json" },
    body: JSON.stringify(device),
  });

const replayed = async ({ method, path, body }: AskedOfTenant) => {
  const { status, body: answer } = await ask(
    method,
    path,
    secret,
    method === "GET" ? undefined : unplaced(body, places()),
  );
  return { status, answer: placed(answer, places()) };
};

describe("what the service asks of a tenant", () => {
  it.each(
    CONTRACT.ofTenant.map((one, index) => [`${index + 1}: ${one.method} ${one.path.split("?")[0]}`, one] as const),
  )("%s", async (_name, one) => expect(await replayed(one)).toEqual({ status: one.status, answer: one.answer }));

  it("is answered with the secret alone, also where the tenant sleeps, which wakes", async () => {
    const available = "/_synapse/mas/is_localpart_available?localpart=zoe";
    for (const token of [undefined, "another"])
      expect((await ask("GET", available, token)).status).toBe(token ? 403 : 401);
    await expect.poll(async () => (await cluster.cli("tenant", "sleep", "clinic", "--wait")).code).toBe(0);
    expect((await ask("GET", available, secret)).status).toBe(200);
    expect((await cluster.tenant("clinic")).phase).toBe("Running");
  });
});

/** Of a session: somebody of that name, with that device, as the service makes them. */
async function sessionOf(answer: Record<string, unknown>, token: string): Promise<void> {
  sessions.set(token, answer);
  if (answer["active"] !== true) return;
  const localpart = String(answer["username"]);
  const device = answer["device_id"] ?? /client:device:(\S+)/.exec(String(answer["scope"]))?.[1];
  await ask("POST", "/_synapse/mas/provision_user", secret, { localpart, set_displayname: localpart });
  await ask("POST", "/_synapse/mas/upsert_device", secret, { localpart, device_id: device });
}

describe("what a tenant asks of the service", () => {
  it.each(CONTRACT.introspections.map((one, index) => [index + 1, one] as const))(
    "session %i: it asks as it did, and takes the answer as it did",
    async (index, { asked: shape, answer }) => {
      const token = `token-${index}`;
      await sessionOf(answer, token);
      const { status, body } = await ask("GET", "/_matrix/client/v3/account/whoami", token);
      expect(asked.at(-1)).toEqual({ shape, authorization: `Bearer ${secret}`, token });
      const known = [200, `@${String(answer["username"])}:${serverName}`, undefined];
      const refused = [401, undefined, "M_UNKNOWN_TOKEN"];
      expect([status, body.user_id, body.errcode]).toEqual(answer["active"] === true ? known : refused);
    },
  );

  it("is where clients sign in, which it tells them", async () => {
    const { body } = await ask("GET", "/_matrix/client/v1/auth_metadata");
    expect(body.issuer).toBe((unplaced(CONTRACT.metadata, places()) as { issuer: string }).issuer);
  });
});

const whoAmI = (token: string) => ask("GET", "/_matrix/client/v3/account/whoami", token);
const timesAsked = (token: string) => asked.filter((one) => one.token === token).length;
const [SOMEBODY] = CONTRACT.introspections;

it("the service is asked about a token once, and once more after a move, in which nothing fails", async () => {
  await sessionOf(SOMEBODY!.answer, "moved");
  for (let n = 0; n < 3; n += 1) expect((await whoAmI("moved")).status).toBe(200);
  expect(timesAsked("moved")).toBe(1);
  const [moved, meanwhile] = await Promise.all([cluster.move("clinic"), whoAmI("moved")]);
  expect([moved.failedRequests, meanwhile.status]).toEqual([0, 200]);
  for (let n = 0; n < 3; n += 1) expect((await whoAmI("moved")).status).toBe(200);
  expect(timesAsked("moved")).toBe(2);
});

it("a token whose device the service removes is refused at once, though it is remembered", async () => {
  const answer: Record<string, unknown> = { ...SOMEBODY!.answer, device_id: "LEAVING" };
  await sessionOf(answer, "leaving");
  expect((await whoAmI("leaving")).status).toBe(200);
  const device = { localpart: answer["username"], device_id: "LEAVING" };
  expect((await deleteDevice(device)).statusCode).toBe(204);
  expect([(await whoAmI("leaving")).status, timesAsked("leaving")]).toEqual([401, 1]);
});

it("while the service is away, tokens that are remembered go on and others are to come again, and a tenant starts; when it is back, all goes on", async () => {
  await sessionOf(SOMEBODY!.answer, "known");
  await sessionOf(SOMEBODY!.answer, "unknown");
  expect((await whoAmI("known")).status).toBe(200);
  await new Promise((done) => {
    service.close(done);
    service.closeAllConnections();
  });
  expect((await whoAmI("known")).status).toBe(200);
  expect(await whoAmI("unknown")).toMatchObject({
    status: 503,
    body: { error: "Unable to introspect the access token" },
  });
  expect(await ask("POST", LOGIN, undefined, {})).toMatchObject({ status: 503, body: { errcode: "M_LIMIT_EXCEEDED" } });
  await expect.poll(async () => (await cluster.cli("tenant", "sleep", "clinic", "--wait")).code).toBe(0);
  expect((await ask("GET", "/_matrix/key/v2/server")).status).toBe(200);
  expect((await cluster.cli("tenant", "wake", "clinic", "--wait")).code).toBe(0);
  expect((await whoAmI("unknown")).status).toBe(503);
  await listen();
  expect((await whoAmI("unknown")).status).toBe(200);
  expect((await ask("POST", LOGIN, undefined, {})).status).toBe(200);
});

it("asking how to sign in is answered by the service while the tenant sleeps, and wakes nobody; a client with a token wakes it", async () => {
  await sessionOf(SOMEBODY!.answer, "waker");
  await expect.poll(async () => (await cluster.cli("tenant", "sleep", "clinic", "--wait")).code).toBe(0);
  expect((await ask("GET", LOGIN)).body).toEqual({ answeredBy: "the service", path: LOGIN });
  expect((await cluster.tenant("clinic")).phase).toBe("Asleep");
  expect((await whoAmI("waker")).status).toBe(200);
  expect((await cluster.tenant("clinic")).phase).toBe("Running");
});

it("the homeserver has a rendezvous for sign-ins by QR code", async () => {
  const made = await request(`${home}/_matrix/client/unstable/org.matrix.msc4108/rendezvous`, {
    method: "POST",
    headers: { "content-type": "text/plain" },
    body: "hello",
  });
  expect(made.statusCode).toBe(201);
  const { url: address } = (await made.body.json()) as { url: string };
  const met = await request(home + new URL(address).pathname);
  expect([met.statusCode, await met.body.text()]).toEqual([200, "hello"]);
});

it("logins go to the service, and follow it to another address", async () => {
  for (const path of [LOGIN, "/_matrix/client/v3/logout", "/_matrix/client/r0/refresh"])
    expect(await ask("POST", path, undefined, {})).toEqual({ status: 200, body: { answeredBy: "the service", path } });
  const other = createServer((_incoming, outgoing) => void outgoing.end('{"answeredBy": "another"}'));
  await new Promise<void>((done) => void other.listen(0, "127.0.0.1", done));
  const { port } = other.address() as { port: number };
  const set = await cluster.cli("tenant", "authentication", "set", "clinic", `http://127.0.0.1:${port}`, "--wait");
  expect(set).toMatchObject({ code: 0, stdout: expect.stringContaining(secret) as string });
  expect((await ask("GET", LOGIN)).body).toEqual({ answeredBy: "another" });
  other.closeAllConnections();
  other.close();
});
