import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Agent, request, type Dispatcher } from "undici";
import { z } from "zod";
import type { ApiError } from "../api/errors.ts";
import { ROOT } from "../model/project.ts";
import { CliError, EXIT, Unreachable } from "./errors.ts";

/** The API answers at once what it can; one call, registering a user, waits for Synapse for up to 30 seconds. */
const ANSWER_TIMEOUT_MS = 60_000;

const ClusterFile = z.object({ apiUrl: z.url(), tokenFile: z.string(), pid: z.int().optional() });

export interface ConnectOptions {
  data?: string;
  server?: string;
  tokenFile?: string;
}

export interface CallOptions {
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
}

/** @returns the directory of `--data`, of the environment, or the checkout's own */
export function dataDirectory(given: string | undefined): string {
  const fromEnvironment = process.env["SYNAPSE_SHARDS_DATA"];
  if (given !== undefined) return resolve(given);
  return fromEnvironment ? resolve(fromEnvironment) : join(ROOT, "data");
}

/** Finds the cluster's API and its token. @throws CliError with what to do when there is none */
export async function connect(options: ConnectOptions): Promise<Client> {
  if (options.server !== undefined) {
    if (!URL.canParse(options.server) || !/^https?:$/.test(new URL(options.server).protocol)) {
      throw new CliError(
        EXIT.usage,
        `--server must be a URL such as http://127.0.0.1:8010, but ${options.server} was given`,
      );
    }
    if (options.tokenFile === undefined) throw new CliError(EXIT.usage, "--server needs --token-file FILE too");
    return new Client(options.server, await readToken(options.tokenFile), (problem) => `${problem}: check the address`);
  }
  const directory = dataDirectory(options.data);
  const file = join(directory, "cluster.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" && (error as NodeJS.ErrnoException).code !== "ENOTDIR") {
      throw new CliError(EXIT.failed, `cannot read ${file}: ${(error as Error).message}`, { cause: error });
    }
    throw new CliError(
      EXIT.failed,
      `no cluster runs with data directory ${directory}: start one with \`synapse-shards up\``,
    );
  }
  const parsed = ClusterFile.safeParse(parseJson(text));
  if (!parsed.success) {
    throw new CliError(
      EXIT.failed,
      `${file} is damaged: stop the cluster and start it again with \`synapse-shards up\``,
    );
  }
  const { apiUrl, tokenFile, pid } = parsed.data;
  const token = await readToken(options.tokenFile ?? resolve(directory, tokenFile));
  return new Client(apiUrl, token, (problem) => {
    if (pid !== undefined && !lives(pid))
      return `the cluster with data directory ${directory} has ended: start it with \`synapse-shards up\``;
    return `${problem}; if this lasts, stop the cluster and start it again with \`synapse-shards up\``;
  });
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function readToken(file: string): Promise<string> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "EACCES" ? "only the user who started the cluster can read it" : message;
    throw new CliError(EXIT.failed, `cannot read the API token ${file}: ${why}`, { cause: error });
  }
}

/** Speaks to the controller's HTTP API. Every method throws CliError with the API's own words. */
export class Client {
  readonly #baseUrl: string;
  readonly #token: string;
  readonly #advise: (problem: string) => string;
  // A followed stream may be silent for hours.
  readonly #agent = new Agent({ headersTimeout: ANSWER_TIMEOUT_MS, bodyTimeout: 0 });

  constructor(baseUrl: string, token: string, advise: (problem: string) => string) {
    this.#baseUrl = baseUrl.replace(/\/+$/, "");
    this.#token = token;
    this.#advise = advise;
  }

  async call<T>(method: "GET" | "POST" | "PATCH" | "DELETE", path: string, options: CallOptions = {}): Promise<T> {
    const { body } = await this.#send(method, path, options);
    const value = parseJson(await this.#reading(() => body.text()));
    if (value === undefined) throw new CliError(EXIT.failed, `${this.#baseUrl} answers, but is no synapse-shards API`);
    return value as T;
  }

  /** Lines of a text or NDJSON stream, without line ends. */
  async *lines(path: string, options: CallOptions = {}): AsyncGenerator<string> {
    const { body } = await this.#send("GET", path, options);
    body.setEncoding("utf8");
    let rest = "";
    try {
      for await (const chunk of body as AsyncIterable<string>) {
        const parts = (rest + chunk).split("\n");
        rest = parts.pop() ?? "";
        yield* parts;
      }
    } catch (error) {
      throw new CliError(EXIT.failed, "the controller broke the stream off; run the command again", { cause: error });
    }
    if (rest !== "") yield rest;
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(
    method: Dispatcher.HttpMethod,
    path: string,
    { query = {}, body }: CallOptions,
  ): Promise<Dispatcher.ResponseData> {
    const url = new URL(`${this.#baseUrl}${path}`);
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, String(value));
    const headers: Record<string, string> = { authorization: `Bearer ${this.#token}` };
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await this.#reading(() =>
      request(url, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        dispatcher: this.#agent,
      }),
    );
    if (response.statusCode < 300) return response;
    const text = await this.#reading(() => response.body.text());
    throw failureOf(response.statusCode, parseJson(text), this.#baseUrl);
  }

  async #reading<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const reason = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
      throw new Unreachable(this.#advise(`the controller does not answer at ${this.#baseUrl} (${reason})`), {
        cause: error,
      });
    }
  }
}

function failureOf(status: number, answer: unknown, baseUrl: string): CliError {
  const error = (answer as Partial<ApiError> | undefined)?.error;
  if (!error)
    return new CliError(EXIT.failed, `${baseUrl} answers with status ${status}, but is no synapse-shards API`);
  if (status === 401) return new CliError(EXIT.failed, `${baseUrl} does not take the token: ${error.message}`);
  if (status === 404) return new CliError(EXIT.notFound, error.message);
  if (status === 504) return new CliError(EXIT.timeout, error.message);
  return new CliError(EXIT.failed, error.message);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
