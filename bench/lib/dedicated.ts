import { type ChildProcess, spawn } from "node:child_process";
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { stringify } from "yaml";
import { freePort } from "../../src/platforms/local/up/ports.ts";
import { endProcess } from "./processes.ts";
import type { BenchTenant } from "./tenant.ts";

const HOST = "127.0.0.1";
const READY_MS = 60_000;

/** One stock Synapse process for one server name: what people run today. */
export class DedicatedSynapse {
  readonly url: string;
  readonly pid: number;
  readonly tenant: BenchTenant;

  private constructor(url: string, pid: number, tenant: BenchTenant) {
    this.url = url;
    this.pid = pid;
    this.tenant = tenant;
  }

  /** @throws Error with the last lines of its output if it does not come up */
  static async start(options: { python: string; directory: string; tenant: BenchTenant }): Promise<DedicatedSynapse> {
    const { python, directory, tenant } = options;
    const port = await freePort(HOST);
    const file = (name: string) => join(directory, name);
    await writeFile(file("signing.key"), tenant.secrets.signingKey, { mode: 0o600 });
    await writeFile(file("log.yaml"), stringify(logging(file("homeserver.log"))));
    await writeFile(file("homeserver.yaml"), stringify(config(tenant, directory, port)), { mode: 0o600 });
    const output = await open(file("output.log"), "w");
    let child: ChildProcess;
    try {
      child = spawn(python, ["-m", "synapse.app.homeserver", "-c", file("homeserver.yaml")], {
        cwd: directory,
        detached: true,
        stdio: ["ignore", output.fd, output.fd],
      });
      child.on("error", () => {}); // seen as a process without a pid
    } finally {
      await output.close();
    }
    if (child.pid === undefined) throw new Error(`cannot run ${python}`);
    const synapse = new DedicatedSynapse(`http://${HOST}:${port}`, child.pid, tenant);
    for (const deadline = Date.now() + READY_MS; ; await sleep(50)) {
      if (await answers(synapse.url)) return synapse;
      if (child.exitCode === null && Date.now() < deadline) continue;
      await endProcess(child.pid);
      throw new Error(
        `the dedicated Synapse of ${tenant.name} did not come up: ${(await readFile(file("output.log"), "utf8")).slice(-1500)}`,
      );
    }
  }

  async stop(): Promise<void> {
    await endProcess(this.pid);
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    const { statusCode, body } = await request(`${url}/health`, { signal: AbortSignal.timeout(1_000) });
    await body.dump();
    return statusCode === 200;
  } catch {
    return false;
  }
}

/**
 * What `generate_config` writes, with the database as Synapse's guide to PostgreSQL has it (cp_min, cp_max), and without calls to
 * external key servers, which would differ from run to run.
 */
function config(tenant: BenchTenant, directory: string, port: number): Record<string, unknown> {
  const { host, port: databasePort, name, user } = tenant.database;
  return {
    server_name: tenant.serverName,
    public_baseurl: `http://${tenant.serverName}/`,
    pid_file: join(directory, "homeserver.pid"),
    listeners: [
      {
        port,
        tls: false,
        type: "http",
        x_forwarded: true,
        bind_addresses: [HOST],
        resources: [{ names: ["client", "federation"], compress: false }],
      },
    ],
    database: {
      name: "psycopg2",
      args: {
        user,
        password: tenant.secrets.databasePassword,
        dbname: name,
        host,
        port: databasePort,
        cp_min: 5,
        cp_max: 10,
      },
    },
    log_config: join(directory, "log.yaml"),
    media_store_path: tenant.mediaPath,
    registration_shared_secret: tenant.secrets.registrationSharedSecret,
    macaroon_secret_key: tenant.secrets.macaroonSecretKey,
    form_secret: tenant.secrets.formSecret,
    signing_key_path: join(directory, "signing.key"),
    report_stats: false,
    trusted_key_servers: [],
    suppress_key_server_warning: true,
  };
}

/** The log configuration that `generate_config` writes, without its buffer, which the shard does not have either. */
function logging(file: string): Record<string, unknown> {
  return {
    version: 1,
    formatters: {
      precise: { format: "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s" },
    },
    handlers: {
      file: {
        class: "logging.handlers.TimedRotatingFileHandler",
        formatter: "precise",
        filename: file,
        when: "midnight",
        backupCount: 3,
        encoding: "utf8",
      },
    },
    loggers: { "synapse.storage.SQL": { level: "INFO" } },
    root: { level: "INFO", handlers: ["file"] },
    disable_existing_loggers: false,
  };
}
