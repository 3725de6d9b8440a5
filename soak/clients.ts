import { setTimeout as sleep } from "node:timers/promises";
import { Agent, request } from "undici";
import type { ClientFacts } from "./oracle.ts";

/** A request that is parked waits for half a minute; beyond that an answer is overdue. */
const ANSWER_MS = 45_000;
const SEND_EVERY_MS = 120;
const RETRY_MS = 250;
const LONG_POLL_MS = 5_000;
const PAGE = 500;
/** What is to be sent at a time is sent this much later at most, by a tenant that runs. */
const LATE_MS = 15_000;
/** Bounds what a run remembers of a tenant that always fails. */
const FAILURES_KEPT = 1_000;

interface Reply {
  status: number;
  body: Record<string, unknown>;
}

/** A request that failed for its client: no answer, 5xx, or 4xx where it was entitled to more. */
export interface Failure {
  begun: number;
  at: number;
  what: string;
}

/** One tenant's user: sends numbered messages and follows the room by sync, through the gateway, as clients do. */
export class Client {
  readonly tenant: string;
  readonly password: string;
  readonly failures: Failure[] = [];
  readonly acknowledged: string[] = [];
  /** Messages that its homeserver sends at a time, and when. */
  readonly later: { body: string; at: number }[] = [];
  token = "";
  #room = "";
  #next = 0;
  #sending: Load | undefined;
  #following: Load | undefined;
  readonly #port: number;
  readonly #agent = new Agent({ connections: 16, headersTimeout: 0, bodyTimeout: 0 });

  constructor(tenant: string, port: number, password: string) {
    this.tenant = tenant;
    this.#port = port;
    this.password = password;
  }

  /** Logs in and makes a room. @param invited a user of another server @returns another room, with that user */
  async enter(invited?: string): Promise<string | undefined> {
    const identifier = { type: "m.id.user", user: "alice" };
    const login = await this.#must("POST", "/v3/login", {
      type: "m.login.password",
      identifier,
      password: this.password,
    });
    this.token = String(login["access_token"]);
    this.#room = String((await this.#must("POST", "/v3/createRoom", {}))["room_id"]);
    if (invited === undefined) return undefined;
    const shared = await this.#must("POST", "/v3/createRoom", { preset: "private_chat", invite: [invited] });
    return String(shared["room_id"]);
  }

  /** Whether it uses its tenant, or only listens to it at most. */
  get isInUse(): boolean {
    return this.#sending !== undefined;
  }

  /** Starts the load; of a user who rests it is only listening. */
  start({ resting = false } = {}): void {
    this.#following ??= load((signal) => this.#follow(signal));
    if (!resting) this.#sending ??= load((signal) => this.#send(signal));
  }

  /** Sends nothing any more: what is under way is acknowledged first. @param laterSeconds for a last message that its homeserver sends then */
  async rest(laterSeconds?: number): Promise<string> {
    await this.#sending?.end();
    this.#sending = undefined;
    if (laterSeconds === undefined) return "rests";
    const body = `later-${this.#next++}`;
    const path = `${this.#sendPath(body)}?org.matrix.msc4140.delay=${laterSeconds * 1000}`;
    const status = await this.#counted("PUT", path, { msgtype: "m.text", body });
    if (status !== 200) return `rests, and its message for later was answered with ${status || "nothing"}`;
    this.later.push({ body, at: Date.now() + laterSeconds * 1000 });
    return "rests";
  }

  /** Ends the load; what is under way is answered or given up first. */
  async stop(): Promise<void> {
    await Promise.all([this.#sending?.end(), this.#following?.end()]);
    this.#sending = this.#following = undefined;
  }

  async close(): Promise<void> {
    await this.stop();
    await this.#agent.destroy();
  }

  /** What should be found now. */
  async look(): Promise<ClientFacts> {
    // A message acknowledged while the others are read would be missed.
    const due = this.later.filter(({ at }) => at < Date.now() - LATE_MS).map(({ body }) => body);
    const acknowledged = [...this.acknowledged, ...due];
    const begun = Date.now();
    try {
      const whoami = await this.#call("GET", "/v3/account/whoami");
      const media = await this.#call("GET", "/v1/media/config");
      const uploadBytes = Number(media.body["m.upload.size"]);
      return {
        status: whoami.status,
        uploadBytes,
        messages: whoami.status === 200 ? await this.#messages() : [],
        acknowledged,
      };
    } catch (error) {
      this.#failed("look", begun, String(error));
      return { status: 0, messages: [], acknowledged };
    }
  }

  /** A message is sent with the same transaction id until it is acknowledged, so it must be there once, whatever happens. */
  async #send(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const body = `m-${this.#next++}`;
      const path = this.#sendPath(body);
      while (!signal.aborted) {
        // The end of the load does not cut it off: an answer that is on its way counts.
        const status = await this.#counted("PUT", path, { msgtype: "m.text", body });
        if (status === 200) this.acknowledged.push(body);
        if (status === 200) break;
        await pause(RETRY_MS, signal);
      }
      await pause(SEND_EVERY_MS, signal);
    }
  }

  #sendPath(transaction: string): string {
    return `/v3/rooms/${encodeURIComponent(this.#room)}/send/m.room.message/${transaction}`;
  }

  async #follow(signal: AbortSignal): Promise<void> {
    let since = "";
    while (!signal.aborted) {
      const begun = Date.now();
      try {
        const path = `/v3/sync?timeout=${since ? LONG_POLL_MS : 0}${since && `&since=${since}`}`;
        const { status, body } = await this.#call("GET", path, undefined, signal);
        if (status === 200) since = String(body["next_batch"]);
        // An older release may not know a newer one's tokens: Synapse's own limit. A client then starts a new sync.
        else if (status === 400 && since) since = "";
        else this.#failed("sync", begun, `${status} ${JSON.stringify(body).slice(0, 200)}`);
        if (status !== 200) await pause(RETRY_MS, signal);
      } catch (error) {
        if (!signal.aborted) this.#failed("sync", begun, String(error));
        await pause(RETRY_MS, signal);
      }
    }
  }

  async #messages(): Promise<string[]> {
    const bodies: string[] = [];
    for (let from = ""; ;) {
      const path = `/v3/rooms/${encodeURIComponent(this.#room)}/messages?dir=b&limit=${PAGE}${from && `&from=${from}`}`;
      const page = await this.#must("GET", path);
      const chunk = page["chunk"] as { type: string; content: { body?: unknown } }[];
      for (const event of chunk) if (event.type === "m.room.message") bodies.push(String(event.content.body));
      if (typeof page["end"] !== "string" || chunk.length === 0) return bodies;
      from = page["end"];
    }
  }

  async #counted(method: "PUT", path: string, body: unknown): Promise<number> {
    const begun = Date.now();
    try {
      const { status, body: answer } = await this.#call(method, path, body);
      if (status !== 200) this.#failed("send", begun, `${status} ${JSON.stringify(answer).slice(0, 200)}`);
      return status;
    } catch (error) {
      this.#failed("send", begun, String(error));
      return 0;
    }
  }

  async #must(method: "GET" | "POST", path: string, body?: unknown): Promise<Record<string, unknown>> {
    const answer = await this.#call(method, path, body);
    if (answer.status !== 200)
      throw new Error(`${this.tenant}: ${method} ${path.split("?")[0]} was answered with ${answer.status}`);
    return answer.body;
  }

  async #call(method: "GET" | "POST" | "PUT", path: string, body?: unknown, signal?: AbortSignal): Promise<Reply> {
    const limit = AbortSignal.timeout(ANSWER_MS);
    const response = await request(`http://127.0.0.1:${this.#port}/_matrix/client${path}`, {
      method,
      dispatcher: this.#agent,
      headers: {
        host: `${this.tenant}.localhost`,
        ...(this.token ? { authorization: `Bearer ${this.token}` } : {}),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    const text = await response.body.text();
    return {
      status: response.statusCode,
      body: text.startsWith("{") ? (JSON.parse(text) as Record<string, unknown>) : {},
    };
  }

  #failed(kind: string, begun: number, what: string): void {
    if (this.failures.length < FAILURES_KEPT)
      this.failures.push({ begun, at: Date.now(), what: `${this.tenant} ${kind}: ${what}` });
  }
}

interface Load {
  end(): Promise<void>;
}

function load(work: (signal: AbortSignal) => Promise<void>): Load {
  const stop = new AbortController();
  const running = work(stop.signal);
  return {
    end: async () => {
      stop.abort();
      await running;
    },
  };
}

/** The status that the gateway gives for a host. */
export async function statusOf(tenant: string, port: number): Promise<number> {
  try {
    const response = await request(`http://127.0.0.1:${port}/_matrix/client/versions`, {
      headers: { host: `${tenant}.localhost` },
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    await response.body.dump();
    return response.statusCode;
  } catch {
    return 0;
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}
