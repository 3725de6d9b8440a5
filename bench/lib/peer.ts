import { type ChildProcess, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, request } from "undici";
import { endProcess } from "./processes.ts";
import { selfSigned } from "./self-signed.ts";

export const HOST = "127.0.0.1";
const READY_MS = 120_000;
const ANSWER_MS = 60_000;

/** A server that a peer has backed off from. */
export interface BackOff {
  /** Undefined: the peer only says how many there are. */
  destination: string | undefined;
  /** When it was found away first; milliseconds since the epoch. */
  since: number;
}

export interface PeerOptions {
  name: string;
  port: number;
  /** Its own is made in it. */
  directory: string;
}

/** Another homeserver on this machine, as anybody runs it, with SQLite, TLS and one user. */
export abstract class Peer {
  readonly name: string;
  protected readonly port: number;
  protected readonly secret = randomBytes(16).toString("hex");
  readonly #url: string;
  readonly #directory: string;
  readonly #agent = new Agent({ connect: { rejectUnauthorized: false }, connections: 16 });
  #token = "";
  #sent = 0;
  #child: ChildProcess | undefined;

  protected constructor({ name, port, directory }: PeerOptions) {
    this.name = `${name}.localhost:${port}`;
    this.port = port;
    this.#url = `https://${HOST}:${port}`;
    this.#directory = join(directory, name);
  }

  get user(): string {
    return `@bob:${this.name}`;
  }

  /** Whom it would not try to reach now. */
  abstract backOffs(): BackOff[] | Promise<BackOff[]>;

  /** Writes what it needs, and says how it is started. */
  protected abstract prepare(): Promise<{ program: string; args: string[] }>;

  async close(): Promise<void> {
    await this.#agent.destroy();
    if (this.#child?.pid !== undefined) await endProcess(this.#child.pid);
  }

  async join(room: string): Promise<void> {
    await this.#ask("POST", `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/join`, {});
  }

  /** @returns the message's text */
  async send(room: string): Promise<string> {
    const body = `${this.name} ${++this.#sent}`;
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/send/m.room.message/${this.#sent}`;
    await this.#ask("PUT", path, { msgtype: "m.text", body });
    return body;
  }

  protected async start(): Promise<void> {
    await mkdir(this.#directory, { recursive: true });
    const { certificate, key } = await selfSigned(this.name.split(":")[0]!);
    await writeFile(this.file("tls.crt"), certificate);
    await writeFile(this.file("tls.key"), key, { mode: 0o600 });
    const { program, args } = await this.prepare();
    this.#child = await this.spawn(program, args);
    try {
      await this.#untilReady(this.#child);
      await this.#register();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  protected file(name: string): string {
    return join(this.#directory, name);
  }

  /** With its output in a file. */
  protected async spawn(program: string, args: string[]): Promise<ChildProcess> {
    const output = await open(this.file("output.log"), "a");
    try {
      return spawn(program, args, { cwd: this.#directory, detached: true, stdio: ["ignore", output.fd, output.fd] });
    } finally {
      await output.close();
    }
  }

  protected async get(path: string, authorization?: string): Promise<string> {
    return this.#request("GET", path, authorization);
  }

  async #untilReady(child: ChildProcess): Promise<void> {
    for (const deadline = Date.now() + READY_MS; ; await sleep(200)) {
      const answer = await request(`${this.#url}/_matrix/client/versions`, { dispatcher: this.#agent }).catch(() => {});
      await answer?.body.dump();
      if (answer?.statusCode === 200) return;
      if (child.exitCode === null && Date.now() < deadline) continue;
      const output = await readFile(this.file("output.log"), "utf8");
      throw new Error(`the peer ${this.name} did not come up: ${output.slice(-1500)}`);
    }
  }

  /** By the shared secret, which Dendrite takes as Synapse does. */
  async #register(): Promise<void> {
    const path = "/_synapse/admin/v1/register";
    const { nonce } = await this.#ask<{ nonce: string }>("GET", path);
    const password = randomBytes(9).toString("hex");
    const mac = createHmac("sha1", this.secret).update([nonce, "bob", password, "notadmin"].join("\0")).digest("hex");
    const user = { nonce, username: "bob", password, admin: false, mac };
    this.#token = (await this.#ask<{ access_token: string }>("POST", path, user)).access_token;
  }

  async #ask<T>(method: "GET" | "POST" | "PUT", path: string, body?: object): Promise<T> {
    return JSON.parse(await this.#request(method, path, this.#token && `Bearer ${this.#token}`, body)) as T;
  }

  async #request(method: "GET" | "POST" | "PUT", path: string, authorization?: string, body?: object): Promise<string> {
    const answer = await request(`${this.#url}${path}`, {
      method,
      dispatcher: this.#agent,
      headers: { "content-type": "application/json", ...(authorization ? { authorization } : {}) },
      body: body ? JSON.stringify(body) : null,
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const text = await answer.body.text();
    if (answer.statusCode !== 200)
      throw new Error(`${this.name} answered ${method} ${path} with ${answer.statusCode}: ${text.slice(0, 300)}`);
    return text;
  }
}
