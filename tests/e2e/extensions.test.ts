import { writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Webhook } from "standardwebhooks";
import { request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Cluster, RELAXED } from "./support/cluster.ts";
import { UNLIMITED, withConfig } from "./support/fixtures.ts";
import { newUser } from "./support/matrix.ts";
import { Browser, OidcProvider } from "./support/oidc.ts";

/** A module of other people's, as an operator names it. */
const AUTO_ACCEPT = {
  name: "synapse-auto-accept-invite",
  version: "1.2.0",
  hashes: ["sha256:a43945c280cf66b83a5c30c96f1a097a42c0c3271c694ab79c708b1539405b21"],
};
const ACCEPTER = "synapse_auto_accept_invite.InviteAutoAccepter";

let provider: OidcProvider;
let cluster: Cluster;
let gateway: string;
beforeAll(async () => {
  provider = await OidcProvider.listen();
  cluster = await Cluster.start({
    modules: [AUTO_ACCEPT],
    tenantPolicy: {
      ...RELAXED,
      allowedModules: [ACCEPTER],
      allowedDestinations: [`127.0.0.1:${provider.port}`],
    },
  });
  gateway = `localhost:${await cluster.gatewayPort()}`;
  const config = { ...UNLIMITED, modules: [{ module: ACCEPTER, config: {} }], oidc_providers: [provider.settings] };
  await cluster.createTenant("clinic", ...(await withConfig(cluster, config)));
});
afterAll(async () => {
  await cluster?.destroy();
  provider?.close();
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
