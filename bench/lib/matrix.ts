import { createHmac } from "node:crypto";
import { Agent } from "undici";
import { listenerHeaders } from "./listener.ts";
import type { BenchTenant } from "./tenant.ts";

export const PASSWORD = "correct horse battery staple";
const REQUEST_MS = 60_000;

/** A user of a homeserver with an access token; speaks to the homeserver's own listener. */
export class MatrixUser {
  readonly userId: string;
  readonly #url: string;
  readonly #token: string;
  readonly #agent: Agent;
  #transactions = 0;

  private constructor(url: string, agent: Agent, login: { user_id: string; access_token: string }) {
    this.#url = url;
    this.#agent = agent;
    this.userId = login.user_id;
    this.#token = login.access_token;
  }

  get accessToken(): string {
    return this.#token;
  }

  /** Registers a user with the homeserver's shared secret. */
  static async register(url: string, tenant: BenchTenant, name: string): Promise<MatrixUser> {
    const agent = new Agent({ connections: 4 });
    const path = "/_synapse/admin/v1/register";
    const { nonce } = await call<{ nonce: string }>(agent, "GET", `${url}${path}`);
    const mac = createHmac("sha1", tenant.secrets.registrationSharedSecret)
      .update([nonce, name, PASSWORD, "notadmin"].join("\0"))
      .digest("hex");
    return new MatrixUser(
      url,
      agent,
      await call(agent, "POST", `${url}${path}`, { nonce, username: name, password: PASSWORD, admin: false, mac }),
    );
  }

  /** The same user, at the address where the homeserver listens now. */
  at(url: string): MatrixUser {
    const moved = new MatrixUser(url, new Agent({ connections: 4 }), {
      user_id: this.userId,
      access_token: this.#token,
    });
    // Transaction ids belong to the token: a second message with the same id would be taken for the first.
    moved.#transactions = this.#transactions + 1_000_000;
    return moved;
  }

  async createRoom(invite: string[]): Promise<string> {
    return (await this.#call<{ room_id: string }>("POST", "/createRoom", { preset: "private_chat", invite })).room_id;
  }

  async join(roomId: string): Promise<void> {
    await this.#call("POST", `/rooms/${encodeURIComponent(roomId)}/join`, {});
  }

  async send(roomId: string, text: string): Promise<void> {
    this.#transactions += 1;
    await this.#call("PUT", `/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${this.#transactions}`, {
      msgtype: "m.text",
      body: text,
    });
  }

  /** @returns how many rooms the answer has */
  async sync(): Promise<number> {
    const { rooms } = await this.#call<{ rooms?: { join?: object } }>("GET", "/sync?timeout=0");
    return Object.keys(rooms?.join ?? {}).length;
  }

  async close(): Promise<void> {
    await this.#agent.close();
  }

  #call<T>(method: "GET" | "POST" | "PUT", path: string, body?: object): Promise<T> {
    return call<T>(this.#agent, method, `${this.#url}/_matrix/client/v3${path}`, body, this.#token);
  }
}

async function call<T>(
  agent: Agent,
  method: "GET" | "POST" | "PUT",
  url: string,
  body?: object,
  token?: string,
): Promise<T> {
  const { origin, pathname, search } = new URL(url);
  const response = await agent.request({
    origin,
    path: pathname + search,
    method,
    headers: {
      ...listenerHeaders(url),
      ...(body ? { "content-type": "application/json" } : {}),
      ...(token ? { authorization: `Bearer ${token}` } : {}),
    },
    body: body ? JSON.stringify(body) : null,
    signal: AbortSignal.timeout(REQUEST_MS),
  });
  const text = await response.body.text();
  if (response.statusCode !== 200)
    throw new Error(`${method} ${pathname} was answered with ${response.statusCode}: ${text.slice(0, 300)}`);
  return JSON.parse(text) as T;
}

/** Only for making fixtures; what is measured runs with limits. */
export const SEEDING_OVERRIDES = JSON.stringify({
  bcrypt_rounds: 4,
  ...Object.fromEntries(
    ["rc_message", "rc_room_creation"].map((name) => [name, { per_second: 10_000, burst_count: 10_000 }]),
  ),
  rc_joins: { local: { per_second: 10_000, burst_count: 10_000 } },
  rc_invites: Object.fromEntries(
    ["per_room", "per_user", "per_issuer"].map((name) => [name, { per_second: 10_000, burst_count: 10_000 }]),
  ),
});

/** 5 users; 20 rooms, each with two of them and five messages. @returns the users */
export async function seed(
  url: string,
  tenant: BenchTenant,
  size = { users: 5, rooms: 20, messages: 5 },
): Promise<MatrixUser[]> {
  const users: MatrixUser[] = [];
  for (let index = 0; index < size.users; index++) users.push(await MatrixUser.register(url, tenant, `user${index}`));
  for (let index = 0; index < size.rooms; index++) {
    const [host, guest] = [users[index % size.users]!, users[(index + 1) % size.users]!];
    const room = await host.createRoom([guest.userId]);
    await guest.join(room);
    for (let number = 0; number < size.messages; number++)
      await (number % 2 ? guest : host).send(room, `message ${number} of room ${index}`);
  }
  return users;
}
