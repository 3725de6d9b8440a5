import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { Agent, request } from "undici";
import { z } from "zod";
import { exponential } from "../model/backoff.ts";
import type { KeyPair } from "../model/certificates.ts";
import { messageOf } from "../model/errors.ts";
import { writeFileAtomically } from "./routes-file.ts";

/** The controller answers within 20 seconds. */
const ANSWER_MS = 40_000;
const BACKOFF_FIRST_MS = 200;
const BACKOFF_MAX_MS = 10_000;
/** Where the controller gets none, it is asked again now and then: its configuration may change. */
const NONE_MS = 60_000;
const MAX_BYTES = 256 * 1024 * 1024;
/** What an authority asks for: `/.well-known/acme-challenge/TOKEN` (RFC 8555, 8.3). */
const CHALLENGE = /^\/\.well-known\/acme-challenge\/([A-Za-z0-9_-]{1,256})$/;

const Pair = z.object({ name: z.string().max(260), certificate: z.string(), key: z.string() });
const AnswerSchema = z.object({
  stream: z.string(),
  version: z.int(),
  thumbprint: z.string().nullable(),
  names: z.array(z.string()),
  certificates: z.array(Pair),
});
const FileSchema = z.object({ format: z.literal(1), thumbprint: z.string().nullable(), certificates: z.array(Pair) });

export interface SharedOptions {
  url: string;
  tokenFile: string;
  /** What the controller told last, readable by its owner only: for times without one. */
  file: string;
  log: Logger;
  /** Some are new. */
  onChange(): void;
}

/** Certificates that the controller gets for tenants' names, the same at all gateways. */
export class GatewayCertificates {
  readonly #options: SharedOptions;
  readonly #pairs = new Map<string, KeyPair>();
  readonly #stopped = new AbortController();
  readonly #agent = new Agent({ connections: 1, pipelining: 1, headersTimeout: ANSWER_MS, bodyTimeout: ANSWER_MS });
  #thumbprint: string | null = null;
  #known: { stream: string; version: number } | undefined;
  #running: Promise<void> | undefined;

  constructor(options: SharedOptions) {
    this.#options = options;
  }

  /** Takes up what was told last; then follows the controller until it is stopped. */
  async start(): Promise<void> {
    const { file, log } = this.#options;
    try {
      const { thumbprint, certificates } = FileSchema.parse(JSON.parse(await readFile(file, "utf8")));
      this.#thumbprint = thumbprint;
      for (const { name, ...pair } of certificates) this.#pairs.set(name, pair);
    } catch (error) {
      // The controller will send them again.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT")
        log.error({ problem: messageOf(error), file }, "starting without the last certificates");
    }
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
    await this.#agent.destroy();
  }

  /** The one for a host, else the one for all names beside it. */
  find(host: string): KeyPair | undefined {
    return this.#pairs.get(host) ?? this.#pairs.get(`*${host.slice(host.indexOf("."))}`);
  }

  /** What an authority is told that asks whether a host is ours; undefined: it asks for something else, or there is no account. */
  challengeAnswer(method: string | undefined, target: string): string | undefined {
    if (this.#thumbprint === null || method !== "GET") return undefined;
    const token = CHALLENGE.exec(target.split("?", 1)[0]!)?.[1];
    return token === undefined ? undefined : `${token}.${this.#thumbprint}`;
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    const delayOf = exponential(BACKOFF_FIRST_MS, BACKOFF_MAX_MS, Math.random);
    let failures = 0;
    while (!this.#stopped.signal.aborted) {
      let pause = 0;
      try {
        if (!(await this.#ask())) pause = NONE_MS;
        failures = 0;
      } catch (error) {
        if (this.#stopped.signal.aborted) return;
        failures += 1;
        pause = delayOf(failures);
        log.warn(
          { problem: messageOf(error) },
          "the controller could not be asked for certificates; the last ones stay in use",
        );
      }
      if (pause > 0) await sleep(pause, undefined, { signal: this.#stopped.signal }).catch(() => {});
    }
  }

  /** @returns false where the controller gets no certificates */
  async #ask(): Promise<boolean> {
    const { url, tokenFile } = this.#options;
    const at = new URL("/v1/gateway/certificates", url);
    if (this.#known) {
      at.searchParams.set("stream", this.#known.stream);
      at.searchParams.set("version", String(this.#known.version));
    }
    const { statusCode, body } = await request(at, {
      dispatcher: this.#agent,
      headers: { authorization: `Bearer ${(await readFile(tokenFile, "utf8")).trim()}` },
      signal: this.#stopped.signal,
    });
    if (statusCode === 409) {
      await body.dump();
      return false;
    }
    if (statusCode !== 200) {
      await body.dump();
      throw new Error(`the controller answered ${statusCode}`);
    }
    const text = await body.text();
    if (text.length > MAX_BYTES) throw new Error(`the answer is longer than ${MAX_BYTES} bytes`);
    await this.#take(AnswerSchema.parse(JSON.parse(text)));
    return true;
  }

  async #take({ stream, version, thumbprint, names, certificates }: z.infer<typeof AnswerSchema>): Promise<void> {
    const isNews = this.#known?.stream !== stream || this.#known.version !== version;
    this.#known = { stream, version };
    if (!isNews) return;
    this.#thumbprint = thumbprint;
    const present = new Set(names);
    for (const name of this.#pairs.keys()) if (!present.has(name)) this.#pairs.delete(name);
    for (const { name, ...pair } of certificates) this.#pairs.set(name, pair);
    this.#options.onChange();
    const kept = [...this.#pairs].map(([name, pair]) => ({ name, ...pair }));
    try {
      await writeFileAtomically(this.#options.file, JSON.stringify({ format: 1, thumbprint, certificates: kept }));
    } catch (error) {
      this.#options.log.error({ problem: messageOf(error) }, "the last certificates could not be written down");
    }
  }
}
