import { readFile } from "node:fs/promises";
import type { Logger } from "pino";
import { Agent, request } from "undici";
import { z } from "zod";
import { messageOf } from "../model/errors.ts";
import type { AnsweredRequests, RouteAck, RouteFeedLine, WakeRequest } from "../model/routes.ts";
import { describeIssues } from "../model/validation.ts";
import { heardRoutes } from "./heard-routes.ts";
import { exponential } from "../model/backoff.ts";

/** Three pings missed. */
const SILENCE_MS = 15_000;
const BACKOFF_FIRST_MS = 100;
/** Short: until it is connected again, a gateway learns of moves by refused connections only. */
const BACKOFF_MAX_MS = 2_000;
const POST_TIMEOUT_MS = 5_000;
/** A snapshot of 100,000 tenants is some 20 MB. */
const MAX_LINE_BYTES = 128 * 1024 * 1024;

/** Its routes are read one by one (`heardRoutes`). */
const LineSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("snapshot"),
    stream: z.string().optional(),
    version: z.int(),
    routes: z.array(z.unknown()),
  }),
  z.object({ type: z.literal("update"), version: z.int(), routes: z.array(z.unknown()), removed: z.array(z.string()) }),
  z.object({ type: z.literal("ping") }),
]);

export interface FeedOptions {
  /** Names this run of the gateway. */
  gateway: string;
  url: string;
  tokenFile: string;
  log: Logger;
  /** Acts on the routes, at once and to the end: the acknowledgement follows. */
  apply(line: Exclude<RouteFeedLine, { type: "ping" }>): void;
  /** What is to be reported of parks, once. */
  takeParks(): RouteAck["parks"];
  onConnected(connected: boolean): void;
  /** In [0, 1). */
  random?: () => number;
  silenceMs?: number;
}

/** Follows the controller's route feed (docs/route-feed.md) for as long as it is not stopped. */
export class RouteFeedClient {
  readonly #options: FeedOptions;
  readonly #stopped = new AbortController();
  readonly #agent = new Agent({
    connections: 2,
    pipelining: 1,
    allowH2: false,
    headersTimeout: SILENCE_MS,
    bodyTimeout: 0,
  });
  #running: Promise<void> | undefined;
  /** The feed is open. */
  #connected = false;
  #parks: RouteAck["parks"] = {};
  /** What the controller calls the present connection. */
  #stream: string | undefined;
  #version = -1;
  #acked = -1;
  #acking = false;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
    await this.#agent.destroy();
  }

  /** Sends what there is to acknowledge or to report. */
  report(): void {
    if (this.#connected) void this.#acknowledge();
  }

  /** @throws Error when the controller does not take it */
  async askForWakes(tenants: WakeRequest["tenants"]): Promise<void> {
    const body: WakeRequest = { gateway: this.#options.gateway, tenants };
    await this.#post("/v1/routes/wakes", body);
  }

  /** A controller of an earlier version counts none, which is no problem of ours. @throws Error when the controller does not take it */
  async tellAnswered(answered: Omit<AnsweredRequests, "gateway">): Promise<void> {
    const body: AnsweredRequests = { gateway: this.#options.gateway, ...answered };
    await this.#post("/v1/routes/requests", body, [404]);
  }

  async #run(): Promise<void> {
    const { log, random = Math.random } = this.#options;
    let attempt = 0;
    const delayOf = exponential(BACKOFF_FIRST_MS, BACKOFF_MAX_MS, random);
    while (!this.#stopped.signal.aborted) {
      let heard = false;
      let problem = "the stream ended";
      try {
        await this.#follow(() => {
          heard = true;
        });
      } catch (error) {
        problem = messageOf(error);
      }
      this.#connected = false;
      this.#options.onConnected(false);
      if (this.#stopped.signal.aborted) return;
      attempt = heard ? 1 : attempt + 1;
      const delay = delayOf(attempt);
      log.warn({ problem, retryMs: Math.round(delay) }, "route feed lost; the last routes stay in use");
      await this.#sleep(delay);
    }
  }

  /** One connection, until it breaks. */
  async #follow(onLine: () => void): Promise<void> {
    const { gateway, url, log, onConnected, silenceMs = SILENCE_MS } = this.#options;
    const silent = new AbortController();
    const watchdog = setTimeout(() => silent.abort(new Error(`nothing heard for ${silenceMs} ms`)), silenceMs);
    try {
      const response = await request(new URL(`/v1/routes?gateway=${encodeURIComponent(gateway)}&wakes=true`, url), {
        dispatcher: this.#agent,
        headers: { authorization: `Bearer ${await this.#token()}` },
        signal: AbortSignal.any([silent.signal, this.#stopped.signal]),
      });
      if (response.statusCode !== 200) {
        await response.body.dump();
        throw new Error(`the controller answered ${response.statusCode}`);
      }
      let first = true;
      for await (const text of lines(response.body, MAX_LINE_BYTES)) {
        watchdog.refresh();
        const line = parseLine(text, log);
        if (first) {
          if (line.type !== "snapshot") throw new Error("the feed did not begin with a snapshot");
          // The controller counts from the beginning after a restart.
          this.#acked = -1;
          this.#connected = true;
          this.#stream = line.stream;
          onConnected(true);
          log.info({ version: line.version, routes: line.routes.length }, "route feed open");
          first = false;
        }
        onLine();
        if (line.type !== "ping") {
          this.#options.apply(line);
          this.#version = line.version;
        }
        // A ping gives a word that was lost its second chance.
        this.report();
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  #merge(parks: RouteAck["parks"]): void {
    for (const [tenant, { parked, failed }] of Object.entries(parks)) {
      const sum = this.#parks[tenant] ?? { parked: 0, failed: 0 };
      this.#parks[tenant] = { parked: sum.parked + parked, failed: sum.failed + failed };
    }
  }

  /** One at a time, each for the newest version: a later word includes the earlier ones. */
  async #acknowledge(): Promise<void> {
    if (this.#acking) return;
    this.#acking = true;
    try {
      for (;;) {
        this.#merge(this.#options.takeParks());
        const isNews = this.#acked < this.#version || Object.keys(this.#parks).length > 0;
        if (!isNews || this.#stopped.signal.aborted) return;
        const version = this.#version;
        const parks = this.#parks;
        this.#parks = {};
        try {
          const stream = this.#stream === undefined ? {} : { stream: this.#stream };
          const ack: RouteAck = { gateway: this.#options.gateway, version, ...stream, parks };
          await this.#post("/v1/routes/acks", ack);
          this.#acked = version;
        } catch (error) {
          this.#merge(parks);
          this.#options.log.warn({ version, problem: messageOf(error) }, "routes could not be acknowledged");
          return;
        }
      }
    } finally {
      this.#acking = false;
    }
  }

  async #post(
    path: string,
    body: RouteAck | WakeRequest | AnsweredRequests,
    fine: readonly number[] = [],
  ): Promise<void> {
    const response = await request(new URL(path, this.#options.url), {
      method: "POST",
      dispatcher: this.#agent,
      headers: { authorization: `Bearer ${await this.#token()}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.any([AbortSignal.timeout(POST_TIMEOUT_MS), this.#stopped.signal]),
    });
    await response.body.dump();
    if (response.statusCode >= 300 && !fine.includes(response.statusCode))
      throw new Error(`the controller answered ${response.statusCode}`);
  }

  /** Read each time: tokens are replaced without restarting gateways. */
  async #token(): Promise<string> {
    return (await readFile(this.#options.tokenFile, "utf8")).trim();
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#stopped.signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#stopped.signal.addEventListener("abort", done);
    });
  }
}

function parseLine(text: string, log: Logger): RouteFeedLine {
  const result = LineSchema.safeParse(JSON.parse(text));
  if (!result.success)
    throw new Error(`a line of the feed is not as agreed: ${describeIssues(result.error).slice(0, 3).join("; ")}`);
  const line = result.data;
  if (line.type === "ping") return line;
  const { routes, problems } = heardRoutes(line.routes);
  if (problems.length > 0)
    log.error(
      { version: line.version, routes: problems.length, problems: problems.slice(0, 3) },
      "routes cannot be read; their tenants are unavailable here",
    );
  return { ...line, routes };
}

async function* lines(body: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    let start = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      parts.push(chunk.subarray(start, end));
      const line = Buffer.concat(parts).toString("utf8");
      parts = [];
      size = 0;
      start = end + 1;
      if (line.trim() !== "") yield line;
    }
    parts.push(chunk.subarray(start));
    size += chunk.length - start;
    if (size > maxBytes) throw new Error(`a line of the feed is longer than ${maxBytes} bytes`);
  }
}
