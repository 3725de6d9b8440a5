import { readFile } from "node:fs/promises";
import http, { type IncomingMessage } from "node:http";
import { join, resolve } from "node:path";
import { text as readAll } from "node:stream/consumers";
import { ROOT } from "../model/project.ts";
import { quoted } from "../model/shell.ts";
import { accessOf, readNamed, readToken, type ConnectOptions, type RemoteAccess } from "./access.ts";
import { CliError, EXIT, Unreachable } from "./errors.ts";

/** The API answers at once what it can; one call, registering a user, waits for Synapse for up to 30 seconds. */
const ANSWER_TIMEOUT_MS = 60_000;

/** What a running cluster writes into its data directory. */
interface ClusterFile {
  apiUrl: string;
  tokenFile: string;
  pid?: number;
}

export interface CallOptions {
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
}

/** Statuses that mean: the request is wrong in itself, so that asking again is of no use. */
const WRONG_INPUT = new Set([400, 413, 415, 422]);

/** @returns the directory of `--data`, of the environment, or the checkout's own */
export function dataDirectory(given: string | undefined): string {
  const fromEnvironment = process.env["SYNAPSE_SHARDS_DATA"];
  if (given !== undefined) return resolve(given);
  return fromEnvironment ? resolve(fromEnvironment) : join(ROOT, "data");
}

/** Finds the cluster's API and its token. @throws CliError with what to do when there is none */
export async function connect(options: ConnectOptions, env: NodeJS.ProcessEnv = process.env): Promise<Client> {
  const access = await accessOf(options, env);
  return "server" in access ? connectTo(access) : connectHere(access);
}

async function connectTo({ server, token, caFile }: RemoteAccess): Promise<Client> {
  const ca = caFile === undefined ? undefined : await readNamed(caFile, "the certificates of the authority");
  return new Client(server, await token(), (problem) => `${problem}: check the address`, ca);
}

/** The cluster of a data directory, which says in a file of it where its API is. */
async function connectHere(options: { data?: string; tokenFile?: string }): Promise<Client> {
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
      `no cluster runs with data directory ${directory}: start one with \`${upCommand(options.data)}\``,
    );
  }
  const cluster = parseJson(text);
  if (!isClusterFile(cluster)) {
    throw new CliError(
      EXIT.failed,
      `${file} is damaged: stop the cluster and start it again with \`${upCommand(options.data)}\``,
    );
  }
  const { apiUrl, tokenFile, pid } = cluster;
  const token = await readToken(options.tokenFile ?? resolve(directory, tokenFile));
  return new Client(apiUrl, token, (problem) => {
    if (pid !== undefined && !lives(pid))
      return `the cluster with data directory ${directory} has ended: start it with \`${upCommand(options.data)}\``;
    return `${problem}; if this lasts, stop the cluster and start it again with \`${upCommand(options.data)}\``;
  });
}

function isClusterFile(value: unknown): value is ClusterFile {
  if (typeof value !== "object" || value === null) return false;
  const { apiUrl, tokenFile, pid } = value as Partial<Record<keyof ClusterFile, unknown>>;
  return (
    typeof apiUrl === "string" &&
    URL.canParse(apiUrl) &&
    typeof tokenFile === "string" &&
    (pid === undefined || Number.isInteger(pid))
  );
}

/** How the cluster of a data directory is started. */
function upCommand(data: string | undefined): string {
  return `synapse-shards up${data === undefined ? "" : ` --data ${quoted(data)}`}`;
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * Speaks to the controller's HTTP API. Every method throws CliError with the API's own words. With Node's own client, which needs a
 * third of the time that a library takes to load: most commands make one call.
 */
export class Client {
  readonly #baseUrl: string;
  readonly #token: string;
  readonly #advise: (problem: string) => string;
  readonly #ca: string | undefined;
  #agent: http.Agent | undefined;

  /** @param ca certificates that are trusted in place of the well-known ones, as PEM */
  constructor(baseUrl: string, token: string, advise: (problem: string) => string, ca?: string) {
    this.#ca = ca;
    this.#baseUrl = baseUrl.replace(/\/+$/, "");
    this.#token = token;
    this.#advise = advise;
  }

  /** @param has what an answer of the API has for certain; what answers without it is something else */
  async call<T>(
    method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE",
    path: string,
    { has = [], ...options }: CallOptions & { has?: readonly (keyof T & string)[] } = {},
  ): Promise<T> {
    const response = await this.#send(method, path, options);
    const value = parseJson(await this.#reading(() => readAll(response)));
    const isAnswer = typeof value === "object" && value !== null && has.every((key) => key in value);
    if (!isAnswer) throw this.#somethingElse("200");
    return value as T;
  }

  /** The answer as it comes. @throws CliError where it is broken off */
  async *bytes(method: "GET" | "POST", path: string): AsyncGenerator<Uint8Array> {
    const response = await this.#send(method, path, {});
    try {
      for await (const chunk of response) yield chunk as Uint8Array;
    } catch (error) {
      throw new CliError(EXIT.failed, "the controller broke the answer off; run the command again", { cause: error });
    }
  }

  /** The same of what may not be there. */
  async find<T>(path: string, options: { has?: readonly (keyof T & string)[] } = {}): Promise<T | undefined> {
    try {
      return await this.call<T>("GET", path, options);
    } catch (error) {
      if (error instanceof CliError && error.exitCode === EXIT.notFound) return undefined;
      throw error;
    }
  }

  /** For what is answered with nothing. */
  async forget(path: string): Promise<void> {
    const response = await this.#send("DELETE", path, {});
    await this.#reading(() => readAll(response));
  }

  /** Lines of a text or NDJSON stream, without line ends. */
  async *lines(path: string, options: CallOptions = {}): AsyncGenerator<string> {
    const response = await this.#send("GET", path, options);
    response.setEncoding("utf8");
    let rest = "";
    try {
      for await (const chunk of response as AsyncIterable<string>) {
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
    this.#agent?.destroy();
  }

  async #send(method: string, path: string, { query = {}, body }: CallOptions): Promise<IncomingMessage> {
    const url = new URL(`${this.#baseUrl}${path}`);
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, String(value));
    const content = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers: Record<string, string | number> = { authorization: `Bearer ${this.#token}` };
    if (content) Object.assign(headers, { "content-type": "application/json", "content-length": content.length });
    const response = await this.#reading(() => this.#ask(url, { method, headers }, content));
    const status = response.statusCode ?? 0;
    if (status < 300) return response;
    const failure = failureIn(parseJson(await this.#reading(() => readAll(response))));
    if (failure === undefined) throw this.#somethingElse(String(status));
    const { explainable } = await import("../model/catalogue/catalogue.ts");
    const { code, message } = failure;
    throw failureOf(status, explainable(code) ? `${message} (explain ${code} tells more)` : message, this.#baseUrl);
  }

  async #ask(url: URL, options: http.RequestOptions, content: Buffer | undefined): Promise<IncomingMessage> {
    const { Agent, request } = url.protocol === "https:" ? await import("node:https") : http;
    this.#agent ??= new Agent({ keepAlive: true, ...(this.#ca === undefined ? {} : { ca: this.#ca }) });
    const { promise, resolve: answered, reject } = Promise.withResolvers<IncomingMessage>();
    const asking = request(url, { ...options, agent: this.#agent }, answered);
    asking.on("error", reject);
    // Until the answer begins: a followed stream may be silent for hours.
    const timer = setTimeout(
      () => asking.destroy(new Error(`no answer within ${ANSWER_TIMEOUT_MS / 1000} s`)),
      ANSWER_TIMEOUT_MS,
    );
    asking.end(content);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  #somethingElse(status: string): CliError {
    return new CliError(
      EXIT.failed,
      `${this.#baseUrl} answers with status ${status}, but is not the API of synapse-shards: check the address`,
    );
  }

  async #reading<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw new Unreachable(this.#advise(`the controller does not answer at ${this.#baseUrl} (${reasonOf(error)})`), {
        cause: error,
      });
    }
  }
}

/** What every failed call of the API is answered with; see `ApiError`. */
function failureIn(value: unknown): { code: string; message: string } | undefined {
  const { code, message } = (value as { error?: { code?: unknown; message?: unknown } } | undefined)?.error ?? {};
  return typeof code === "string" && typeof message === "string" && message !== "" ? { code, message } : undefined;
}

function failureOf(status: number, message: string, baseUrl: string): CliError {
  if (status === 401) return new CliError(EXIT.failed, `${baseUrl} does not take the token: ${message}`);
  if (status === 404) return new CliError(EXIT.notFound, message);
  if (status === 504) return new CliError(EXIT.timeout, message);
  return new CliError(WRONG_INPUT.has(status) ? EXIT.usage : EXIT.failed, message);
}

/** Of a failed connection: its code, or the first words there are. */
function reasonOf(error: unknown): string {
  const { code, message, cause, errors } = error as NodeJS.ErrnoException & { errors?: unknown[] };
  if (code?.startsWith("HPE_")) return "what listens there does not speak HTTP";
  if (code) return code;
  if (message) return message;
  return cause || errors?.[0] ? reasonOf(cause ?? errors?.[0]) : "no reason is known";
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
