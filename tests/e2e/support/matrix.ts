import {
  ClientEvent,
  createClient,
  MatrixError,
  type MatrixClient,
  type MatrixEvent,
  RoomEvent,
  SyncState,
} from "matrix-js-sdk";
import { type Logger, logger } from "matrix-js-sdk/lib/logger.js";
import { Agent, fetch as undiciFetch } from "undici";
import type { Cluster } from "./cluster.ts";

/** The client tells a lot; what matters of it is in `failures`. */
const SILENT: Logger = { getChild: () => SILENT, trace() {}, debug() {}, info() {}, warn() {}, error() {} };
for (const level of ["trace", "debug", "info", "warn", "error"] as const) logger[level] = () => {};
logger.getChild = () => SILENT;

export const PASSWORD = "correct horse battery staple";

/** One request that a client saw fail: no answer, or a status that is no success. */
export interface FailedRequest {
  method: string;
  path: string;
  what: string;
}

/** Names below .localhost are this machine, as browsers have it; the system's resolver may not know that. */
const agent = new Agent({
  connections: 64,
  headersTimeout: 0,
  bodyTimeout: 0,
  connect: {
    lookup: (_host, options, done) =>
      options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4),
  },
});

export class TestUser {
  readonly client: MatrixClient;
  readonly failures: FailedRequest[] = [];
  /** Requests that were answered with success. */
  succeeded = 0;

  readonly #dispatcher: Agent;

  /** @param dispatcher finds the server; by default it is on this machine */
  constructor(
    baseUrl: string,
    login?: { accessToken: string; userId: string; deviceId: string },
    dispatcher: Agent = agent,
  ) {
    this.#dispatcher = dispatcher;
    this.client = createClient({
      baseUrl,
      logger: SILENT,
      ...login,
      fetchFn: (input: string | URL | Request, init?: RequestInit) => this.#fetch(input, init),
      localTimeoutMs: 120_000,
    });
  }

  async #fetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
    const url = new URL(input instanceof Request ? input.url : input);
    const failed = (what: string) => this.failures.push({ method: init?.method ?? "GET", path: url.pathname, what });
    try {
      const response = await undiciFetch(url, { ...init, dispatcher: this.#dispatcher } as Parameters<
        typeof undiciFetch
      >[1]);
      // Clients find out what a server offers by asking; "no such thing" is a good answer to that.
      const probe = response.status === 404 && url.pathname.includes("/unstable/");
      if (response.status >= 400 && !probe) failed(`status ${response.status}`);
      else this.succeeded += 1;
      return response;
    } catch (error) {
      if (!init?.signal?.aborted) failed(String((error as Error).cause ?? error));
      throw error;
    }
  }

  /** Begins to sync, and waits until the first sync is in. */
  async sync(pollTimeout = 10_000): Promise<void> {
    const prepared = new Promise<void>((done) => {
      this.client.on(ClientEvent.Sync, (state) => {
        if (state === SyncState.Prepared) done();
      });
    });
    await this.client.startClient({ initialSyncLimit: 50, pollTimeout });
    await prepared;
  }

  /** Bodies of the messages of a room as they came by sync, each as often as it came. */
  listen(roomId: string): string[] {
    const bodies: string[] = [];
    const seen = (event: MatrixEvent) => {
      if (event.getRoomId() === roomId && event.getType() === "m.room.message" && !event.status)
        bodies.push(String(event.getContent()["body"]));
    };
    this.client.on(RoomEvent.Timeline, seen);
    return bodies;
  }

  /** Downloads a media file as a client does, with its access token. */
  async download(mxc: string): Promise<Buffer> {
    const url = this.client.mxcUrlToHttp(mxc, undefined, undefined, undefined, undefined, undefined, true);
    const response = await undiciFetch(url!, {
      dispatcher: this.#dispatcher,
      headers: { authorization: `Bearer ${this.client.getAccessToken()}` },
    });
    if (response.status !== 200) throw new Error(`media ${mxc}: status ${response.status}: ${await response.text()}`);
    return Buffer.from(await response.arrayBuffer());
  }

  stop(): void {
    this.client.stopClient();
  }
}

/** Registers a user through the CLI and logs in through the gateway. */
export async function newUser(cluster: Cluster, tenant: string, name: string): Promise<TestUser> {
  const { code, stderr } = await cluster.cli("tenant", "register-user", tenant, "--user", name, "--password", PASSWORD);
  if (code !== 0) throw new Error(`cannot register ${name} on ${tenant}: ${stderr}`);
  return logIn(cluster, tenant, name);
}

export async function logIn(cluster: Cluster, tenant: string, name: string): Promise<TestUser> {
  return logInAt((await cluster.tenant(tenant)).url, name);
}

export async function logInAt(url: string, name: string): Promise<TestUser> {
  const anonymous = new TestUser(url);
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await anonymous.client.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: name },
        password: PASSWORD,
      });
      return new TestUser(url, {
        accessToken: answer.access_token,
        userId: answer.user_id,
        deviceId: answer.device_id,
      });
    } catch (error) {
      if (!(error instanceof MatrixError) || error.errcode !== "M_LIMIT_EXCEEDED" || attempt === 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, 3_000));
    }
  }
}

/** All messages of a room as the server has them, oldest first. */
export async function messagesOf(user: TestUser, roomId: string): Promise<string[]> {
  const bodies: string[] = [];
  let from: string | null = null;
  for (;;) {
    const page = await user.client.createMessagesRequest(roomId, from, 100, "b" as never);
    for (const event of page.chunk) if (event.type === "m.room.message") bodies.push(String(event.content["body"]));
    if (!page.end || page.chunk.length === 0) return bodies.toReversed();
    from = page.end;
  }
}

/** A media file that is a text. */
export async function downloadMedia(user: TestUser, mxc: string): Promise<string> {
  return (await user.download(mxc)).toString("utf8");
}
