import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { stringify } from "yaml";
import { type AdminLogin, withConnection } from "../../src/database/connection.ts";
import { freePort } from "../../src/platforms/local/up/ports.ts";
import { endProcess } from "./processes.ts";
import type { BenchTenant } from "./tenant.ts";

const HOST = "127.0.0.1";
const READY_MS = 60_000;

/** What every Dendrite of the benchmarks has, wherever its data are. */
export function dendriteConfig(server: {
  name: string;
  keyFile: string;
  secret: string;
  directory: string;
  /** @returns where a component's tables are */
  database: (component: string) => object;
  more?: { global?: object; federation?: object };
}): Record<string, unknown> {
  const { name, keyFile, secret, directory, database, more = {} } = server;
  const of = (component: string) => ({ database: database(component) });
  return {
    version: 2,
    global: {
      server_name: name,
      private_key: keyFile,
      jetstream: { storage_path: join(directory, "jetstream") },
      presence: { enable_inbound: false, enable_outbound: false },
      ...more.global,
    },
    app_service_api: of("appservice"),
    client_api: { registration_disabled: true, registration_shared_secret: secret, rate_limiting: { enabled: false } },
    federation_api: { ...of("federation"), key_perspectives: [], ...more.federation },
    key_server: of("keys"),
    media_api: { ...of("media"), base_path: join(directory, "media") },
    mscs: of("mscs"),
    relay_api: of("relay"),
    room_server: of("rooms"),
    sync_api: of("sync"),
    user_api: { account_database: database("accounts"), device_database: database("devices"), bcrypt_cost: 4 },
    logging: [{ type: "std", level: "info" }],
  };
}

/** @returns a signing key as Dendrite reads it */
export function dendriteKey(): string {
  const key = randomBytes(32).toString("base64");
  return `-----BEGIN MATRIX PRIVATE KEY-----\nKey-ID: ed25519:auto\n\n${key}\n-----END MATRIX PRIVATE KEY-----\n`;
}

/** One Dendrite process for one server name, on the PostgreSQL server that the others have too. */
export class Dendrite {
  readonly url: string;
  readonly pid: number;

  private constructor(url: string, pid: number) {
    this.url = url;
    this.pid = pid;
  }

  /** Makes its database and files. */
  static async prepare(tenant: BenchTenant, admin: AdminLogin, directory: string): Promise<void> {
    const { name, user, host, port } = tenant.database;
    await withConnection(admin, "postgres", async (client) => {
      await client.query(`CREATE ROLE "${user}" LOGIN PASSWORD '${tenant.secrets.databasePassword}'`);
      await client.query(`CREATE DATABASE "${name}" OWNER "${user}"`);
    });
    await mkdir(directory, { recursive: true });
    const keyFile = join(directory, "matrix_key.pem");
    await writeFile(keyFile, dendriteKey(), { mode: 0o600 });
    const login = `${user}:${encodeURIComponent(tenant.secrets.databasePassword)}@${host}:${port}`;
    const database = { connection_string: `postgres://${login}/${name}?sslmode=disable`, max_open_conns: 10 };
    const config = dendriteConfig({
      name: tenant.serverName,
      keyFile,
      secret: tenant.secrets.registrationSharedSecret,
      directory,
      database: () => database,
    });
    await writeFile(join(directory, "dendrite.yaml"), stringify(config, { aliasDuplicateObjects: false }), {
      mode: 0o600,
    });
  }

  /** @param directory as it was prepared @throws Error with the last of its output if it does not come up */
  static async start(program: string, directory: string): Promise<Dendrite> {
    const url = `http://${HOST}:${await freePort(HOST)}`;
    const output = await open(join(directory, "output.log"), "a");
    let child: ChildProcess;
    try {
      const args = ["--config", join(directory, "dendrite.yaml"), "--http-bind-address", new URL(url).host];
      child = spawn(program, args, { cwd: directory, detached: true, stdio: ["ignore", output.fd, output.fd] });
      child.on("error", () => {}); // seen as a process without a pid
    } finally {
      await output.close();
    }
    if (child.pid === undefined) throw new Error(`cannot run ${program}`);
    for (const deadline = Date.now() + READY_MS; ; await sleep(10)) {
      const answer = await request(`${url}/_matrix/client/versions`).catch(() => {});
      await answer?.body.dump();
      if (answer?.statusCode === 200) return new Dendrite(url, child.pid);
      if (child.exitCode === null && Date.now() < deadline) continue;
      await endProcess(child.pid);
      throw new Error(
        `Dendrite did not come up: ${(await readFile(join(directory, "output.log"), "utf8")).slice(-1500)}`,
      );
    }
  }

  async stop(): Promise<void> {
    await endProcess(this.pid);
  }
}
