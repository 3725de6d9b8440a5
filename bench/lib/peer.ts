import { type ChildProcess, spawn } from "node:child_process";
import { createHmac, randomBytes, webcrypto } from "node:crypto";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import "../../src/certificates/reflect-metadata.ts";
import { cryptoProvider, SubjectAlternativeNameExtension, X509CertificateGenerator } from "@peculiar/x509";
import { Agent, request } from "undici";
import { stringify } from "yaml";
import { endProcess } from "./processes.ts";

const HOST = "127.0.0.1";
const READY_MS = 120_000;
const ANSWER_MS = 60_000;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const often = { per_second: 10_000, burst_count: 10_000 };

/** Names under .localhost are this machine (RFC 6761), which not every resolver knows. */
const WITH_LOCALHOST = `
import runpy, socket
find = socket.getaddrinfo
def getaddrinfo(host, *args, **more):
    name = host.decode() if isinstance(host, bytes) else str(host)
    return find("127.0.0.1" if name.endswith(".localhost") else host, *args, **more)
socket.getaddrinfo = getaddrinfo
runpy.run_module("synapse.app.homeserver", run_name="__main__")
`;

/** A server that a peer has backed off from. */
export interface BackOff {
  destination: string;
  retryIntervalMs: number;
  /** When it was found away first; milliseconds since the epoch. */
  since: number;
}

/** Another homeserver: a plain Synapse of its own, as anybody runs it, with SQLite, TLS and one user. */
export class Peer {
  readonly name: string;
  readonly #url: string;
  readonly #directory: string;
  readonly #secret = randomBytes(16).toString("hex");
  readonly #agent = new Agent({ connect: { rejectUnauthorized: false }, connections: 16 });
  #token = "";
  #sent = 0;
  #child: ChildProcess | undefined;

  private constructor(name: string, port: number, directory: string) {
    this.name = `${name}.localhost:${port}`;
    this.#url = `https://${HOST}:${port}`;
    this.#directory = directory;
  }

  get user(): string {
    return `@bob:${this.name}`;
  }

  static async start(options: { python: string; name: string; port: number; directory: string }): Promise<Peer> {
    const peer = new Peer(options.name, options.port, join(options.directory, options.name));
    await mkdir(peer.#directory, { recursive: true });
    const child = await peer.#launch(options.python, options.port);
    peer.#child = child;
    try {
      await peer.#untilReady(child);
      await peer.#register();
    } catch (error) {
      await peer.close();
      throw error;
    }
    return peer;
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
    if (this.#child?.pid !== undefined) await endProcess(this.#child.pid);
  }

  async join(room: string): Promise<void> {
    await this.#call("POST", `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/join`, {});
  }

  /** @returns the message's text */
  async send(room: string): Promise<string> {
    const body = `${this.name} ${++this.#sent}`;
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/send/m.room.message/${this.#sent}`;
    await this.#call("PUT", path, { msgtype: "m.text", body });
    return body;
  }

  /** Whom it would not try to reach now, by its own database. */
  backOffs(): BackOff[] {
    const database = new DatabaseSync(join(this.#directory, "homeserver.db"), { readOnly: true });
    try {
      return database
        .prepare("SELECT destination, retry_interval, failure_ts FROM destinations WHERE retry_interval > 0")
        .all()
        .map((row) => ({
          destination: String(row["destination"]),
          retryIntervalMs: Number(row["retry_interval"]),
          since: Number(row["failure_ts"]),
        }));
    } finally {
      database.close();
    }
  }

  async #launch(python: string, port: number): Promise<ChildProcess> {
    const file = (name: string) => join(this.#directory, name);
    const { certificate, key } = await selfSigned(this.name.split(":")[0]!);
    await writeFile(file("tls.crt"), certificate);
    await writeFile(file("tls.key"), key, { mode: 0o600 });
    await writeFile(file("homeserver.yaml"), stringify(this.#config(port, file)), { mode: 0o600 });
    const args = ["-c", WITH_LOCALHOST, "-c", file("homeserver.yaml")];
    const output = await open(file("output.log"), "w");
    try {
      const keys = spawn(python, [...args, "--generate-keys"], { stdio: ["ignore", output.fd, output.fd] });
      await new Promise((done) => keys.once("close", done));
      return spawn(python, args, { cwd: this.#directory, detached: true, stdio: ["ignore", output.fd, output.fd] });
    } finally {
      await output.close();
    }
  }

  #config(port: number, file: (name: string) => string): Record<string, unknown> {
    return {
      server_name: this.name,
      pid_file: file("pid"),
      listeners: [
        { port, tls: true, type: "http", bind_addresses: [HOST], resources: [{ names: ["client", "federation"] }] },
      ],
      tls_certificate_path: file("tls.crt"),
      tls_private_key_path: file("tls.key"),
      database: { name: "sqlite3", args: { database: file("homeserver.db") } },
      media_store_path: file("media"),
      signing_key_path: file("signing.key"),
      registration_shared_secret: this.#secret,
      macaroon_secret_key: this.#secret,
      form_secret: this.#secret,
      report_stats: false,
      trusted_key_servers: [],
      // Everything is on this machine, with certificates of no authority.
      federation_ip_range_blacklist: [],
      federation_verify_certificates: false,
      rc_message: often,
      rc_joins: { local: often, remote: often },
      // One user of it may be invited by many tenants.
      rc_invites: { per_room: often, per_user: often, per_issuer: often },
      rc_federation: { window_size: 1000, sleep_limit: 10_000, reject_limit: 10_000, concurrent: 100 },
    };
  }

  async #untilReady(child: ChildProcess): Promise<void> {
    for (const deadline = Date.now() + READY_MS; ; await sleep(200)) {
      const answer = await request(`${this.#url}/_matrix/client/versions`, { dispatcher: this.#agent }).catch(() => {});
      await answer?.body.dump();
      if (answer?.statusCode === 200) return;
      if (child.exitCode === null && Date.now() < deadline) continue;
      const output = await readFile(join(this.#directory, "output.log"), "utf8");
      throw new Error(`the peer ${this.name} did not come up: ${output.slice(-1500)}`);
    }
  }

  async #register(): Promise<void> {
    const path = "/_synapse/admin/v1/register";
    const { nonce } = await this.#call<{ nonce: string }>("GET", path);
    const password = randomBytes(9).toString("hex");
    const mac = createHmac("sha1", this.#secret).update([nonce, "bob", password, "notadmin"].join("\0")).digest("hex");
    const user = { nonce, username: "bob", password, admin: false, mac };
    this.#token = (await this.#call<{ access_token: string }>("POST", path, user)).access_token;
  }

  async #call<T>(method: "GET" | "POST" | "PUT", path: string, body?: object): Promise<T> {
    const answer = await request(`${this.#url}${path}`, {
      method,
      dispatcher: this.#agent,
      headers: {
        "content-type": "application/json",
        ...(this.#token ? { authorization: `Bearer ${this.#token}` } : {}),
      },
      body: body ? JSON.stringify(body) : null,
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const text = await answer.body.text();
    if (answer.statusCode !== 200)
      throw new Error(`${this.name} answered ${method} ${path} with ${answer.statusCode}: ${text.slice(0, 300)}`);
    return JSON.parse(text) as T;
  }
}

async function selfSigned(host: string): Promise<{ certificate: string; key: string }> {
  cryptoProvider.set(webcrypto as never);
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const now = Date.now();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${host}`,
    notBefore: new Date(now - 86_400_000),
    notAfter: new Date(now + 86_400_000),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [new SubjectAlternativeNameExtension([{ type: "dns", value: host }])],
  });
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return {
    certificate: certificate.toString("pem"),
    key: `-----BEGIN PRIVATE KEY-----\n${der.match(/.{1,64}/g)!.join("\n")}\n-----END PRIVATE KEY-----\n`,
  };
}
