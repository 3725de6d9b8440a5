import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { Agent, request } from "undici";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { freePort } from "../../src/platforms/local/up/ports.ts";
import { Authority } from "../support/authority.ts";
import { PATIENCE_MS, until } from "../support/patience.ts";
import { Cluster, RELAXED } from "./support/cluster.ts";
import { UNLIMITED, withConfig } from "./support/fixtures.ts";
import { messagesOf, newUser, type TestUser } from "./support/matrix.ts";
import { OldSynapse } from "./support/old-synapse.ts";
import { databaseBeside } from "./support/plain-synapse.ts";

vi.setConfig({ testTimeout: 6 * PATIENCE_MS, hookTimeout: 8 * PATIENCE_MS });

/** Where other servers find a server name, as DNS has it: one port for all time, which leads to another server later, or nowhere. */
class Door {
  to: number | undefined;
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server.on("connection", (socket) => this.#lead(socket));
  }

  static async make(): Promise<Door> {
    const server = createServer();
    await once(server.listen(0, "127.0.0.1"), "listening");
    return new Door(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  #lead(socket: Socket): void {
    const further = this.to === undefined ? undefined : connect(this.to, "127.0.0.1");
    for (const each of [socket, further]) {
      if (!each) continue;
      this.#open.add(each);
      each.on("error", () => {}).on("close", () => [socket, further].forEach((other) => other?.destroy()));
    }
    if (further) socket.pipe(further).pipe(socket);
    else socket.destroy();
  }

  /** Also who is connected has to come again. */
  leadTo(port: number | undefined): void {
    this.to = port;
    for (const socket of this.#open) socket.destroy();
    this.#open.clear();
  }

  close(): void {
    this.leadTo(undefined);
    this.#server.close();
  }
}

let cluster: Cluster;
let door: Door;
let old: OldSynapse;
let bob: TestUser;

beforeAll(async () => {
  door = await Door.make();
  const tenantPolicy = { ...RELAXED, allowedDestinations: [`127.0.0.1:${door.port}`] };
  cluster = await Cluster.start({ tenantPolicy });
  const authority = await Authority.make();
  const trusts = join(cluster.dataDir, "ca.crt");
  const port = await freePort("127.0.0.1");
  door.leadTo(port);
  const federation = { port, trusts, ...(await authority.issue(["known.localhost"])) };
  const database = await databaseBeside(cluster, "known");
  const tlsPort = await cluster.gatewayPort("https");
  const both = `${await readFile(trusts, "utf8")}\n${authority.pem}`;
  const config = await withConfig(cluster, { ...UNLIMITED, synapse_shards: { federation_authorities: both } });
  const peer = `peer.localhost:${tlsPort}`;
  [old] = await Promise.all([
    OldSynapse.start("1.150.0", `known.localhost:${door.port}`, { database, federation }),
    cluster.createTenant("peer", "--server-name", peer, ...config),
  ]);
  bob = await newUser(cluster, "peer", "bob");
});
afterAll(async () => {
  await old?.end();
  await cluster?.destroy();
  door?.close();
  if (old) await rm(old.directory, { recursive: true, force: true });
});

/** As another server asks for them. */
async function keysAtDoor(): Promise<unknown> {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false, servername: "known.localhost" } });
  try {
    const headers = { host: `known.localhost:${door.port}` };
    const { body } = await request(`https://127.0.0.1:${door.port}/_matrix/key/v2/server`, { dispatcher, headers });
    const { server_name, verify_keys } = (await body.json()) as { server_name?: string; verify_keys?: object };
    return { server_name, verify_keys };
  } finally {
    await dispatcher.destroy();
  }
}

/** Of its file: `ed25519 a_AbCd SEED`. */
async function keyIdOf({ directory }: OldSynapse): Promise<string> {
  const [algorithm, version] = (await readFile(join(directory, "signing.key"), "utf8")).split(" ");
  return `${algorithm}:${version}`;
}

it("an imported tenant goes on with a server that knew the old one: by its name, its key and its rooms", async () => {
  const { client } = old.user;
  const { room_id: room } = await client.createRoom({
    preset: "private_chat" as never,
    invite: [bob.client.getSafeUserId()],
  });
  await until("bob is invited", async () => (await bob.client.joinRoom(room)).roomId === room);
  await client.sendTextMessage(room, "from the old server");
  await bob.client.sendTextMessage(room, "from the peer");
  const hears = (user: TestUser, body: string) =>
    until(`${body} is heard`, async () => (await messagesOf(user, room)).includes(body));
  await hears(bob, "from the old server");
  await hears(old.user, "from the peer");

  const keys = await keysAtDoor();
  expect(keys).toMatchObject({ server_name: old.serverName, verify_keys: { [await keyIdOf(old)]: expect.anything() } });
  door.leadTo(undefined);
  await old.end();
  await bob.client.sendTextMessage(room, "while nobody was there");
  const file = join(old.directory, "homeserver.yaml");
  const { code, stdout, stderr } = await cluster.cli("tenant", "import", "known", "--homeserver-yaml", file);
  expect(code, `${stdout}\n${stderr}`).toBe(0);
  door.leadTo(await cluster.gatewayPort("https"));
  expect(await keysAtDoor()).toEqual(keys);

  const alice = old.at((await cluster.tenant("known")).url);
  await alice.client.sendTextMessage(room, "from the tenant");
  await hears(bob, "from the tenant");
  // What it says itself tells the other that it is there again.
  await hears(alice, "while nobody was there");
  await bob.client.sendTextMessage(room, "to the tenant");
  await hears(alice, "to the tenant");

  const { room_id: next } = await bob.client.createRoom({ invite: [alice.client.getSafeUserId()] });
  await until("alice is invited", async () => (await alice.client.joinRoom(next)).roomId === next);
  await alice.client.sendTextMessage(next, "in a room of the peer's");
  await until("it is heard", async () => (await messagesOf(bob, next)).includes("in a room of the peer's"));
});
