import { readdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Webhook } from "standardwebhooks";
import { request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { AdminAccessView, AdminSession } from "../../src/model/admin-access.ts";
import { Cluster, RELAXED } from "./support/cluster.ts";
import { UNLIMITED, withConfig } from "./support/fixtures.ts";
import { Administrator, pagesOf } from "./support/administrator.ts";
import { newUser, PASSWORD } from "./support/matrix.ts";
import { Bot } from "./support/mautrix.ts";
import { Browser, OidcProvider } from "./support/oidc.ts";

/** A module of other people's, as an operator names it. */
const AUTO_ACCEPT = {
  name: "synapse-auto-accept-invite",
  version: "1.2.0",
  hashes: ["sha256:a43945c280cf66b83a5c30c96f1a097a42c0c3271c694ab79c708b1539405b21"],
};
/** Of the tenant with a bot. */
const MOVES = Number(process.env["BOT_MOVES"] ?? 4);
/** Where an admin UI is. */
const UI = "https://admin.example";
const ACCEPTER = "synapse_auto_accept_invite.InviteAutoAccepter";

let provider: OidcProvider;
const bot = new Bot();
let cluster: Cluster;
let gateway: string;
beforeAll(async () => {
  provider = await OidcProvider.listen();
  await bot.start();
  cluster = await Cluster.start({
    modules: [AUTO_ACCEPT],
    gateway: { adminAccess: { port: 0, ui: `${UI}/` } },
    tenantPolicy: {
      ...RELAXED,
      allowedModules: [ACCEPTER],
      allowedDestinations: [`127.0.0.1:${provider.port}`, `127.0.0.1:${bot.port}`],
    },
  });
  gateway = `localhost:${await cluster.gatewayPort()}`;
  const config = { ...UNLIMITED, modules: [{ module: ACCEPTER, config: {} }], oidc_providers: [provider.settings] };
  await cluster.createTenant("clinic", ...(await withConfig(cluster, config)));
});
afterAll(async () => {
  await cluster?.destroy();
  provider?.close();
  await bot.stop();
});

it("a module from PyPI that the configuration names does its work in a tenant: an invited user joins", async () => {
  const alice = await newUser(cluster, "clinic", "alice");
  const bob = await newUser(cluster, "clinic", "bob");
  const [bobId, carolId] = ["@bob:clinic.localhost", "@carol:clinic.localhost"];
  await alice.sync();
  const { room_id: room } = await alice.client.createRoom({ preset: "private_chat" as never, invite: [bobId] });
  const members = async () => Object.keys((await alice.client.getJoinedRoomMembers(room)).joined);
  await expect.poll(members).toContain(bobId);
  expect(await cluster.move("clinic")).toMatchObject({ failedRequests: 0 });
  const carol = await newUser(cluster, "clinic", "carol");
  await alice.client.invite(room, carolId);
  await expect.poll(members).toContain(carolId);
  for (const user of [alice, bob, carol]) user.stop();
});

it("a bot gets each message once and in order, whatever it and its tenant do meanwhile", async () => {
  const registration = join(cluster.dataDir, "registration.yaml");
  const everywhere = { rooms: [{ regex: ".*", exclusive: false }] };
  const url = `http://127.0.0.1:${bot.port}`;
  await writeFile(
    registration,
    JSON.stringify({ id: bot.id, ...bot.tokens, sender_localpart: bot.id, url: "http://a" }),
  );
  const appservice = (...args: string[]) => cluster.cli("tenant", "appservice", ...args);
  const added = await appservice("add", "clinic", "--registration", registration, "--url", url, "--wait");
  expect(added).toMatchObject({ code: 0, stdout: expect.stringContaining(bot.tokens.as_token) as string });
  await writeFile(registration, JSON.stringify({ id: bot.id, sender_localpart: bot.id, url, namespaces: everywhere }));
  expect((await appservice("add", "clinic", "--registration", registration, "--wait", "--yes")).code).toBe(0);
  expect((await appservice("ping", "clinic", bot.id)).stdout).toMatch(/helpdesk answered in \d+ ms/);

  const dave = await newUser(cluster, "clinic", "dave");
  const { room_id: room } = await dave.client.createRoom({});
  const sent: string[] = [];
  const send = async (text: string) => {
    sent.push(text);
    await dave.client.sendTextMessage(room, text);
  };
  for (let move = 1; move <= MOVES; move++) {
    const moved = cluster.move("clinic");
    await send(`during move ${move}`);
    await moved;
    await send(`after move ${move}`);
  }
  dave.stop();
  await expect.poll(() => bot.got.length).toBe(sent.length);
  await bot.stop();
  await send("while the bot is away");
  expect(await appservice("ping", "clinic", bot.id)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("could not be reached") as string,
  });
  expect(await cluster.move("clinic")).toMatchObject({ failedRequests: 0 });
  await bot.start();
  await send("when it is back");
  expect((await appservice("ping", "clinic", bot.id)).code).toBe(0);
  await expect.poll(() => bot.got.length).toBe(sent.length);

  await send("before it sleeps");
  await expect.poll(async () => (await cluster.cli("tenant", "sleep", "clinic")).code).toBe(0);
  await expect.poll(async () => (await cluster.tenant("clinic")).phase).toBe("Asleep");
  expect(bot.got.at(-1)).toBe("before it sleeps");
  const asked = await request(`http://${gateway}/_matrix/client/v3/account/whoami`, {
    headers: { host: "clinic.localhost", authorization: `Bearer ${bot.tokens.as_token}` },
  });
  expect(await asked.body.json()).toMatchObject({ user_id: "@helpdesk:clinic.localhost" });
  expect(bot.got).toEqual(sent);
  expect((await appservice("remove", "clinic", bot.id, "--yes", "--wait")).code).toBe(0);
});

it("a plan that is read again bounds its tenant, and a webhook tells the operator of it", async () => {
  const secretFile = join(cluster.dataDir, "webhook-secret");
  const secret = "secret-of-the-webhook-in-this-test";
  await writeFile(secretFile, secret);
  const told: string[] = [];
  const receive = async (incoming: IncomingMessage, response: ServerResponse) => {
    const body = await text(incoming);
    const { data } = new Webhook(secret, { format: "raw" }).verify(
      body,
      incoming.headers as Record<string, string>,
    ) as {
      data: { notices: { reason: string; object: string }[] };
    };
    told.push(...data.notices.map(({ reason, object }) => `${reason} ${object}`));
    response.writeHead(204).end();
  };
  const receiver = createServer((incoming, response) => void receive(incoming, response));
  await new Promise<void>((done) => void receiver.listen(0, "127.0.0.1", done));
  const { port } = receiver.address() as AddressInfo;
  const webhook = { name: "ops", url: `http://127.0.0.1:${port}/`, secretFile, topics: ["quota"] };
  await cluster.reconfigure({
    plans: { tiny: { mediaBytes: "1K", users: 100 } },
    notifications: { groupSeconds: 0, webhooks: [webhook] },
  });
  await expect.poll(async () => (await cluster.cli("notifications", "test")).code).toBe(0);
  await cluster.json("tenant", "update", "clinic", "--plan", "tiny", "--wait");
  const erin = await newUser(cluster, "clinic", "erin");
  const upload = (bytes: number) => erin.client.uploadContent(Buffer.alloc(bytes), { type: "text/plain" });
  await expect(upload(2000)).rejects.toMatchObject({ httpStatus: 403, errcode: "M_RESOURCE_LIMIT_EXCEEDED" });
  await expect.poll(() => told).toEqual(["QuotaReached Tenant/clinic"]);
  await cluster.json("tenant", "update", "clinic", "--plan", "none", "--wait");
  await expect(upload(2000)).resolves.toMatchObject({ content_uri: expect.stringMatching(/^mxc:/) as string });
  erin.stop();
  receiver.closeAllConnections();
  receiver.close();
});

it("a user signs in to a tenant through an OpenID provider, behind the gateway", async () => {
  const home = `http://clinic.${gateway}`;
  provider.trust(`${home}/_synapse/client/oidc/callback`);
  const browser = new Browser();
  const page = await browser.visit(
    `${home}/_matrix/client/v3/login/sso/redirect/oidc-own?redirectUrl=https://client.example/`,
    { login: "dora", password: "any" },
  );
  expect(browser.visited.some((url) => url.startsWith(`${provider.issuer}/interaction/`))).toBe(true);
  const token = /loginToken=([^"&]+)/.exec(page)?.[1];
  expect(token, page).toBeDefined();
  const login = await request(`http://127.0.0.1:${gateway.split(":")[1]}/_matrix/client/v3/login`, {
    method: "POST",
    headers: { host: `clinic.${gateway}`, "content-type": "application/json" },
    body: JSON.stringify({ type: "m.login.token", token }),
  });
  expect(await login.body.json()).toMatchObject({ user_id: "@dora:clinic.localhost" });
});

it("an administrator works with a tenant by an admin UI while it is open, with no other one, and breaks no wall", async () => {
  const [ada, rest] = ["@ada:clinic.localhost", "/_synapse/admin"];
  const user = await newUser(cluster, "clinic", "ada");
  const { room_id: room } = await user.client.createRoom({ name: "Ward", visibility: "public" as never });
  const { address } = await cluster.json<AdminAccessView>("tenant", "admin-access", "show", "clinic");
  const admin = new Administrator(address!, UI);
  expect(await admin.ask("GET", "/_matrix/client/versions")).toMatchObject({ status: 403, code: "AdminAccessClosed" });
  const opened = await cluster.json<AdminAccessView>(
    "tenant",
    "admin-access",
    "open",
    "clinic",
    "--network",
    "127.0.0.1",
  );
  expect(opened.ui).toBe(`${UI}/?server=${encodeURIComponent(address!)}`);
  expect((await admin.signIn("ada", PASSWORD)).status).toBe(200);

  // A user is no administrator by coming in here.
  expect(await admin.ask("GET", `${rest}/v2/users`)).toMatchObject({ status: 403, code: undefined });
  await cluster.json("tenant", "users", "make-admin", "clinic", "ada");
  for (const path of pagesOf(ada, room)) expect([path, (await admin.ask("GET", path)).status]).toEqual([path, 200]);
  const made = await admin.ask("PUT", `${rest}/v2/users/@eve:clinic.localhost`, { password: PASSWORD });
  expect(made.status).toBe(201);
  const reset = { new_password: `${PASSWORD}!`, logout_devices: true };
  expect((await admin.ask("POST", `${rest}/v1/reset_password/@eve:clinic.localhost`, reset)).status).toBe(200);
  expect((await admin.ask("POST", `${rest}/v1/deactivate/@eve:clinic.localhost`, { erase: true })).status).toBe(200);
  expect((await admin.ask("DELETE", `${rest}/v2/rooms/${room}`, { block: true, purge: true })).status).toBe(200);

  // What others would feel is refused, with and without an administrator's token.
  for (const [method, path] of [
    ["GET", "/v1/register"],
    ["POST", "/v1/register"],
    ["POST", "/v1/background_updates/enabled"],
    ["POST", "/v1/background_updates/start_job"],
    ["POST", `/v1/users/${ada}/override_ratelimit`],
    ["GET", "/v2/users?limit=100000"],
    ["GET", "/v1/unknown"],
  ] as const)
    expect(await admin.ask(method, `${rest}${path}`)).toMatchObject({ status: 403, code: "AdminPathRefused" });
  const evil = new Administrator(address!, "https://evil.example", admin.token);
  expect(await evil.ask("GET", `${rest}/v2/users`)).toMatchObject({ status: 403, code: "AdminOriginRefused" });
  for (const kind of ["http", "https"] as const) {
    const outside = new Administrator(`${kind}://clinic.localhost:${await cluster.gatewayPort(kind)}`, UI, admin.token);
    expect(await outside.ask("GET", `${rest}/v2/users`)).toMatchObject({ status: 403, code: "AdminForbidden" });
  }

  await cluster.createTenant("other");
  const elsewhere = new Administrator(`https://other.localhost:${new URL(address!).port}`, UI, admin.token);
  expect(await elsewhere.ask("GET", `${rest}/v2/users`)).toMatchObject({ status: 403, code: "AdminAccessClosed" });
  await cluster.json("tenant", "admin-access", "open", "other");
  expect(await elsewhere.ask("GET", `${rest}/v2/users`)).toMatchObject({ status: 401, code: undefined });
  user.stop();

  // Somebody without an account there is signed in as one who has; who did what is in logs, the token is in none.
  const session = await cluster.json<AdminSession>("tenant", "admin-access", "sign-in", "clinic", "ada");
  const signedIn = new Administrator(session.address, UI, session.token);
  expect((await signedIn.ask("GET", `${rest}/v2/users/${ada}`)).json).toMatchObject({ name: ada, admin: true });
  expect((await elsewhere.ask("GET", `${rest}/v2/users`)).status).toBe(401);
  const log = (await cluster.cli("tenant", "logs", "clinic", "--tail", "1000")).stdout;
  expect(log).toMatch(
    new RegExp(`Processed request.*DELETE /_synapse/admin/v2/rooms/|DELETE /_synapse/admin/v2/rooms/.*${ada}`),
  );
  const texts = await logsBelow(cluster.dataDir);
  expect(texts.some((text) => text.includes("openAdminSession"))).toBe(true);
  expect(texts.filter((text) => text.includes(session.token))).toEqual([]);

  // With the tenant's closing that session ends everywhere, and no other.
  await cluster.json("tenant", "admin-access", "close", "clinic");
  expect(await admin.ask("GET", `${rest}/v2/users`)).toMatchObject({ status: 403, code: "AdminAccessClosed" });
  const everywhere = `https://clinic.localhost:${await cluster.gatewayPort("https")}`;
  const whoami = async (token: string) =>
    (await new Administrator(everywhere, UI, token).ask("GET", "/_matrix/client/v3/account/whoami")).status;
  expect([await whoami(session.token), await whoami(admin.token!)]).toEqual([401, 200]);

  await cluster.json("tenant", "admin-access", "open", "clinic");
  await cluster.json("tenant", "suspend", "clinic");
  await expect.poll(async () => (await admin.ask("GET", `${rest}/v2/users`)).status).not.toBe(200);
  expect((await admin.ask("GET", `${rest}/v2/users`)).code).toBe("Suspended");
});

/** Contents of what is written of what happens: logs of all parts, the audit log and the records of the supervisor. */
async function logsBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && /\.(?:log|jsonl?)$/.test(entry.name));
  return Promise.all(files.map(({ parentPath, name }) => readFile(join(parentPath, name), "utf8")));
}
