import { execFile, spawn, type ChildProcess } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { request } from "undici";
import { stringify } from "yaml";
import { withConnection } from "../../../src/database/connection.ts";
import { startTestServer, type TestServer } from "../../database/postgres-server.ts";
import { until } from "../../support/patience.ts";

/**
 * A directory with a Matrix Authentication Service: the program `mas-cli`, and `share` with its templates, translations, policy and assets, as
 * its release has them.
 */
export const MAS = process.env["MAS"];

/** Of systemd, which starts services by their sockets. */
export const SOCKET_ACTIVATE = "/usr/bin/systemd-socket-activate";

export const PROVIDER_ID = "01HFVBY12TMNTYTBV8W921M5FA";

const OFTEN = { burst: 1000, per_second: 1000 };

interface MasSettings {
  port: number;
  /** As the tenant's CLI prints it. */
  matrix: object;
  /** An OpenID provider, as a tenant's homeserver.yaml would have it. */
  provider?: { issuer: string; client_id: string; client_secret: string };
}

/** The real service, with a database of its own. */
export class MatrixAuthenticationService {
  readonly url: string;
  readonly #directory: string;
  readonly #port: number;
  readonly #config: string;
  readonly #database: TestServer;
  #process: ChildProcess | undefined;

  private constructor(port: number, directory: string, database: TestServer) {
    this.url = `http://localhost:${port}`;
    this.#port = port;
    this.#directory = directory;
    this.#config = join(directory, "config.yaml");
    this.#database = database;
  }

  static async create({ port, matrix, provider }: MasSettings): Promise<MatrixAuthenticationService> {
    const directory = await mkdtemp(join(tmpdir(), "shards-mas-"));
    const database = await startTestServer();
    const { host, port: databasePort, user, password } = database.admin;
    await withConnection(
      database.admin,
      "postgres",
      async (client) => void (await client.query("CREATE DATABASE mas")),
    );
    const service = new MatrixAuthenticationService(port, directory, database);
    const share = join(MAS!, "share");
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const resources = ["discovery", "human", "oauth", "compat", "graphql", "health"].map((name) => ({ name }));
    const config = {
      http: {
        public_base: `${service.url}/`,
        listeners: [
          {
            name: "web",
            resources: [...resources, { name: "assets", path: join(share, "assets") }],
            binds: [{ address: `127.0.0.1:${port}` }] as object[],
          },
        ],
      },
      database: { host, port: databasePort, username: user, password, database: "mas", max_connections: 5 },
      matrix,
      secrets: {
        encryption: randomBytes(32).toString("hex"),
        keys: [{ key: privateKey.export({ type: "pkcs1", format: "pem" }) }],
      },
      // The first one is Synapse's, for accounts that come from there.
      passwords: {
        enabled: true,
        minimum_complexity: 0,
        schemes: [
          { version: 1, algorithm: "bcrypt", unicode_normalization: true },
          { version: 2, algorithm: "argon2id" },
        ],
      },
      account: { password_registration_enabled: true, password_registration_email_required: false },
      email: { transport: "blackhole" },
      // Of one address: all that the tests do comes from one.
      rate_limiting: { registration: OFTEN, login: { per_ip: OFTEN, per_account: OFTEN } },
      templates: {
        path: join(share, "templates"),
        assets_manifest: join(share, "manifest.json"),
        translations_path: join(share, "translations"),
      },
      policy: {
        wasm_module: join(share, "policy.wasm"),
        data: {
          client_registration: { allow_insecure_uris: true, allow_host_mismatch: true, allow_missing_client_uri: true },
        },
      },
      upstream_oauth2: {
        providers: [provider]
          .flatMap((one) => one ?? [])
          .map((one) => ({
            id: PROVIDER_ID,
            human_name: "Own",
            ...one,
            token_endpoint_auth_method: "client_secret_basic",
            scope: "openid",
            discovery_mode: "insecure",
            claims_imports: { localpart: { action: "require", template: "{{ user.sub }}" } },
          })),
      },
    };
    await writeFile(service.#config, stringify(config));
    // Given its socket by whoever starts it.
    config.http.listeners[0]!.binds = [{ fd: 0 }];
    await writeFile(`${service.#config}.activated`, stringify(config));
    return service;
  }

  /** @returns how long it took until it answered, in milliseconds */
  async start(): Promise<number> {
    const begun = performance.now();
    const child = this.#spawn(join(MAS!, "mas-cli"), ["server", "--config", this.#config]);
    await until("the authentication service answers", async () => {
      if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${await this.log()}`);
      return (await request(`${this.url}/health`)).statusCode === 200;
    });
    return performance.now() - begun;
  }

  /** Its socket is listened on, and its first connection starts it. */
  async startOnDemand(): Promise<void> {
    const server = [join(MAS!, "mas-cli"), "server", "--config", `${this.#config}.activated`];
    this.#spawn(SOCKET_ACTIVATE, ["--listen", `127.0.0.1:${this.#port}`, ...server]);
    const listening = `Listening on 127.0.0.1:${this.#port}`;
    await until("the socket is listened on", async () => (await this.log()).includes(listening));
  }

  #spawn(program: string, args: string[]): ChildProcess {
    const log = openSync(join(this.#directory, "log"), "a");
    const child = spawn(program, args, {
      stdio: ["ignore", log, log],
      cwd: this.#directory,
      env: { RUST_LOG: "warn" },
    });
    closeSync(log);
    this.#process = child;
    return child;
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGTERM");
    await ended;
  }

  async destroy(): Promise<void> {
    await this.stop();
    await this.#database.stop();
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** Runs a command of its own, such as `manage lock-user`. */
  async command(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(join(MAS!, "mas-cli"), [...args, "--config", this.#config]);
    return stdout;
  }

  log(): Promise<string> {
    return readFile(join(this.#directory, "log"), "utf8");
  }

  /** Of its process, in MiB. */
  async memory(): Promise<number> {
    const rollup = await readFile(`/proc/${this.#process?.pid}/smaps_rollup`, "utf8");
    return Number(/^Pss: +(\d+) kB/m.exec(rollup)?.[1]) / 1024;
  }
}
