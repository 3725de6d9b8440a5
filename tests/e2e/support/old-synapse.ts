import { spawn, type ChildProcess } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtemp, mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Agent, buildConnector, request } from "undici";
import { stringify } from "yaml";
import { withConnection, type AdminLogin } from "../../../src/database/connection.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { ensureSynapse } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { freePort } from "../../../src/platforms/local/up/ports.ts";
import { PATIENCE_MS, until } from "../../support/patience.ts";
import { PASSWORD, TestUser } from "./matrix.ts";

const SHARED_SECRET = "of the old server";

/** Where a server's name leads, as DNS has it: to a port of this machine, or nowhere. */
export class Way {
  port: number | undefined;
  readonly agent: Agent;

  constructor(port: number) {
    this.port = port;
    const connect = buildConnector({});
    this.agent = new Agent({
      // Each request finds its way.
      pipelining: 0,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: (options, done) => {
        if (this.port === undefined) done(new Error("the name leads nowhere"), null);
        else connect({ ...options, hostname: "127.0.0.1", port: String(this.port) }, done);
      },
    });
  }
}

/** A plain Synapse of a release, with a user, a room, a message and an upload, as somebody has it who comes. */
export class OldSynapse {
  readonly directory: string;
  readonly serverName: string;
  readonly #url: string;
  #process: ChildProcess | undefined;
  user!: TestUser;
  room!: string;
  mxc!: string;

  private constructor(directory: string, serverName: string, url: string) {
    this.directory = directory;
    this.serverName = serverName;
    this.#url = url;
  }

  /**
   * @param options.database of PostgreSQL; default: SQLite
   * @param options.more of its configuration, in what is imported alone
   * @param options.federation how other servers of this machine reach it, and whom it trusts
   */
  static async start(
    release: string,
    serverName: string,
    {
      database,
      more = {},
      federation,
    }: { database?: Record<string, unknown>; more?: Record<string, unknown>; federation?: Federation } = {},
  ): Promise<OldSynapse> {
    const directory = await mkdtemp(join(tmpdir(), "synapse-shards-old-"));
    const port = await freePort("127.0.0.1");
    await writeFile(join(directory, "signing.key"), newTenantSecrets(serverName).signingKey);
    await mkdir(join(directory, "media"));
    const sqlite = { name: "sqlite3", args: { database: join(directory, "homeserver.db") } };
    const config = {
      server_name: serverName,
      pid_file: join(directory, "homeserver.pid"),
      listeners: [
        { port, type: "http", tls: false, bind_addresses: ["127.0.0.1"], resources: [{ names: ["client"] }] },
      ],
      database: database ? { name: "psycopg2", args: database } : sqlite,
      media_store_path: join(directory, "media"),
      signing_key_path: join(directory, "signing.key"),
      macaroon_secret_key: "of the old server",
      registration_shared_secret: SHARED_SECRET,
      report_stats: false,
      trusted_key_servers: [],
      ...(federation ? { federation_custom_ca_list: [federation.trusts] } : {}),
    };
    const hurried = {
      ...config,
      background_updates: { sleep_enabled: false },
      ...(federation ? await openTo(federation, directory, config.listeners) : {}),
    };
    await writeFile(join(directory, "plain.yaml"), stringify(hurried, { version: "1.1" }));
    // What the old server itself could not bear here, such as Redis, is only in what is imported.
    await writeFile(join(directory, "homeserver.yaml"), stringify({ ...config, ...more }, { version: "1.1" }));
    const old = new OldSynapse(directory, serverName, `http://127.0.0.1:${port}`);
    const { python } = await ensureSynapse(release);
    await old.#launch(python);
    await old.#work();
    // A server that is a few seconds old has not finished its background updates, which an import refuses.
    const left = database ? () => updatesOnPostgres(database) : () => updatesOnSqlite(sqlite.args.database);
    await until(`${serverName} has finished its updates`, async () => (await left()) === 0, 500);
    return old;
  }

  async #launch(python: string): Promise<void> {
    const child = spawn(python, ["-m", "synapse.app.homeserver", "--config-path", "plain.yaml"], {
      cwd: this.directory,
      env: { ...process.env, PYTHONPATH: this.directory },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = child;
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream?.on("data", (chunk) => (output = `${output}${chunk}`.slice(-4_000)));
    const isUp = async () => {
      if (child.exitCode !== null) return true;
      const answer = await request(`${this.#url}/_matrix/client/versions`).catch(() => undefined);
      await answer?.body.dump();
      return answer?.statusCode === 200;
    };
    await until(`${this.serverName} is up`, isUp, 300, () => output);
    if (child.exitCode !== null) throw new Error(`the old server ended with ${child.exitCode}: ${output}`);
  }

  /** @param way by which its client gets here, and later elsewhere */
  async register(username: string, way?: Way): Promise<TestUser> {
    const url = `${this.#url}/_synapse/admin/v1/register`;
    const { nonce } = (await (await request(url)).body.json()) as { nonce: string };
    const parts = [nonce, username, PASSWORD, "notadmin"];
    const mac = createHmac("sha1", SHARED_SECRET).update(parts.join("\0")).digest("hex");
    const body = JSON.stringify({ nonce, username, password: PASSWORD, admin: false, mac });
    const answer = await request(url, { method: "POST", body });
    const login = (await answer.body.json()) as { access_token: string; user_id: string; device_id: string };
    return this.at(this.#url, login, way);
  }

  get port(): number {
    return Number(new URL(this.#url).port);
  }

  async #work(): Promise<void> {
    this.user = await this.register("alice");
    this.room = (await this.user.client.createRoom({})).room_id;
    await this.user.client.sendTextMessage(this.room, "on the old server");
    const upload = await this.user.client.uploadContent(Buffer.from("old bytes"), {
      type: "text/plain",
      name: "a.txt",
    });
    this.mxc = upload.content_uri;
  }

  /** The same device, elsewhere. */
  at(url: string, login?: { access_token: string; user_id: string; device_id: string }, way?: Way): TestUser {
    if (login) {
      const { access_token: accessToken, user_id: userId, device_id: deviceId } = login;
      // As clients name it, wherever that leads.
      const named = way ? `http://${this.serverName}:${this.port}` : url;
      return new TestUser(named, { accessToken, userId, deviceId }, way?.agent);
    }
    const { client } = this.user;
    return new TestUser(url, {
      accessToken: client.getAccessToken()!,
      userId: client.getUserId()!,
      deviceId: client.getDeviceId()!,
    });
  }

  async end(): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGTERM");
    await ended;
  }
}

export interface Federation {
  port: number;
  certificate: string;
  key: string;
  /** A file of the authority of other servers' certificates. */
  trusts: string;
}

/** Names below .localhost are this machine, as for clients and shards; the system's resolver may not know that. */
const NAMES = `import socket
asked = socket.getaddrinfo
def getaddrinfo(host, *args, **more):
    return asked("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **more)
socket.getaddrinfo = getaddrinfo
`;

/** What only the old server itself has of it: in front of a tenant is a gateway. */
async function openTo({ port, certificate, key }: Federation, directory: string, listeners: object[]) {
  const files = { certificate: join(directory, "tls.crt"), key: join(directory, "tls.key") };
  await writeFile(files.certificate, certificate);
  await writeFile(files.key, key);
  await writeFile(join(directory, "sitecustomize.py"), NAMES);
  const resources = [{ names: ["federation"] }];
  return {
    listeners: [...listeners, { port, type: "http", tls: true, bind_addresses: ["127.0.0.1"], resources }],
    tls_certificate_path: files.certificate,
    tls_private_key_path: files.key,
    federation_ip_range_blacklist: [],
  };
}

const COUNT = "SELECT count(*) AS left FROM background_updates";

async function updatesOnSqlite(file: string): Promise<number> {
  const database = new DatabaseSync(file, { readOnly: true, timeout: PATIENCE_MS });
  try {
    return Number(database.prepare(COUNT).get()?.["left"]);
  } finally {
    database.close();
  }
}

function updatesOnPostgres({ database, ...login }: Record<string, unknown>): Promise<number> {
  return withConnection(login as unknown as AdminLogin, String(database), async (client) =>
    Number((await client.query<{ left: string }>(COUNT)).rows[0]?.left),
  );
}
