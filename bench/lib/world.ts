import { chmod, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type AdminLogin, withConnection } from "../../src/database/connection.ts";
import { tenantDatabaseName } from "../../src/database/names.ts";
import { Preparer } from "../../src/platforms/local/launcher/preparer.ts";
import { ensureTemplate } from "../../src/database/template.ts";
import { provisionTenantDatabase } from "../../src/database/tenant-database.ts";
import { ForkServers } from "../../src/platforms/local/launcher/fork-server.ts";
import { LocalLauncher } from "../../src/platforms/local/launcher/local-launcher.ts";
import { startPostgres } from "../../src/platforms/local/postgres/postgres.ts";
import { DEFAULT_RELEASE, ensurePostgres, ensureSynapse } from "../../src/platforms/local/toolchain/toolchain.ts";
import type { ControlClient } from "../../src/shard/control-client.ts";
import { onEnd } from "./cleanup.ts";
import { DedicatedSynapse } from "./dedicated.ts";
import { MatrixUser } from "./matrix.ts";
import { familyOf } from "./processes.ts";
import { RunningShard } from "./shard.ts";
import { BenchTenant } from "./tenant.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const READY_MS = 60_000;

/** PostgreSQL, shards and dedicated Synapses, all made for one part of the suite and gone after it; no controller, no gateway. */
export class World {
  readonly directory: string;
  readonly admin: AdminLogin;
  readonly version: string;
  readonly #launcher: LocalLauncher;
  readonly #close: () => Promise<void>;
  readonly #dedicated = new Set<DedicatedSynapse>();
  readonly #shards = new Set<string>();
  /** As in a cluster: shards of one release share memory. */
  readonly #forkServers = new ForkServers();

  private constructor(directory: string, admin: AdminLogin, version: string, stopPostgres: () => Promise<void>) {
    this.directory = directory;
    this.admin = admin;
    this.version = version;
    this.#launcher = new LocalLauncher({
      directory: join(directory, "shards"),
      runtimePath: ROOT,
      installSynapse: (release, onProgress) => ensureSynapse(release, { onProgress }),
      forkServers: this.#forkServers,
    });
    this.#close = onEnd(async () => {
      await Promise.allSettled([...this.#dedicated].map((synapse) => synapse.stop()));
      await Promise.allSettled([...this.#shards].map((shard) => this.#launcher.kill(shard)));
      this.#forkServers.close();
      await stopPostgres();
      await rm(directory, { recursive: true, force: true });
    });
  }

  static async open(log: (line: string) => void, version = DEFAULT_RELEASE): Promise<World> {
    const { binDir } = await ensurePostgres();
    const directory = await mkdtemp(join(tmpdir(), "shards-bench-"));
    // PostgreSQL's user, if it is another one, must be able to reach its data.
    await chmod(directory, 0o711);
    const server = await startPostgres({
      dataDir: join(directory, "data"),
      binDir,
      logFile: join(directory, "postgres.log"),
    });
    const admin = { host: server.host, port: server.port, user: server.adminUser, password: server.adminPassword };
    const world = new World(directory, admin, version, async () => {
      await server.stop();
      await rm(server.dataDir, { recursive: true, force: true });
    });
    log(`PostgreSQL runs; making the template of Synapse ${version}`);
    await world.makeTemplate(version);
    return world;
  }

  /** Opens one for as long as it is measured. */
  static async with<T>(log: (line: string) => void, measure: (world: World) => Promise<T>): Promise<T> {
    const world = await World.open(log);
    try {
      return await measure(world);
    } finally {
      await world.close();
    }
  }

  close(): Promise<void> {
    return this.#close();
  }

  /** Users without rate limits, at the address where the tenant's homeserver listens. They are the caller's to close. */
  async users(tenant: BenchTenant, url: string, count: number): Promise<MatrixUser[]> {
    const users: MatrixUser[] = [];
    for (let index = 0; index < count; index++) {
      await withConnection(this.admin, tenant.database.name, (client) =>
        client.query("INSERT INTO ratelimit_override (user_id, messages_per_second, burst_count) VALUES ($1, 0, 0)", [
          `@user${index}:${tenant.serverName}`,
        ]),
      );
      users.push(await MatrixUser.register(url, tenant, `user${index}`));
    }
    return users;
  }

  async makeTemplate(version: string): Promise<void> {
    await ensureTemplate(this.admin, version, async (database) => {
      const preparer = await this.preparer(version);
      try {
        await preparer.template(database);
      } finally {
        await preparer.close();
      }
    });
  }

  async preparer(version = this.version): Promise<Preparer> {
    const { python } = await ensureSynapse(version);
    return Preparer.start({ python, env: { PYTHONPATH: ROOT }, cwd: ROOT });
  }

  /** A tenant with a database of its own, copied from the template of its release. */
  async tenant(name: string, version = this.version): Promise<BenchTenant> {
    const tenant = this.newTenant(name);
    await this.provision(tenant, version);
    return tenant;
  }

  /** A tenant that has no database yet. */
  newTenant(name: string): BenchTenant {
    return new BenchTenant(name, this.admin, join(this.directory, "media", name));
  }

  async provision(tenant: BenchTenant, version = this.version): Promise<void> {
    await provisionTenantDatabase(this.admin, {
      name: tenant.name,
      password: tenant.secrets.databasePassword,
      version,
    });
  }

  /** One after another: several copies at once would only wait for the same disk. */
  async tenants(prefix: string, count: number): Promise<BenchTenant[]> {
    const tenants: BenchTenant[] = [];
    for (let index = 0; index < count; index++) tenants.push(await this.tenant(`${prefix}-${index}`));
    return tenants;
  }

  async shard(name: string): Promise<RunningShard> {
    this.#shards.add(name);
    await this.#launcher.start(name, this.version);
    for (const deadline = Date.now() + READY_MS; Date.now() < deadline; await sleep(20)) {
      const state = await this.#launcher.observe(name);
      if (state.state === "absent")
        throw new Error(`shard ${name} ended at its start; see its log in ${this.directory}`);
      if (state.state !== "running") continue;
      const token = (await readFile(join(this.directory, "shards", name, "token"), "utf8")).trim();
      const control = (await this.#launcher.client(name, state.address)) as ControlClient;
      return new RunningShard({
        name,
        pid: Number(await readFile(join(this.directory, "shards", name, "pid"), "utf8")),
        address: state.address,
        token,
        control,
        stop: () => this.#launcher.stop(name, 60),
      });
    }
    throw new Error(`shard ${name} was not ready after ${READY_MS / 1000} s`);
  }

  /** Every process that shards need: their own, those beside them, and the one that they are forked from. */
  async shardProcesses(): Promise<number[]> {
    const family = await familyOf(process.pid);
    return family.filter(({ command }) => /-m multi_synapse\b/.test(command)).map(({ pid }) => pid);
  }

  /** A stock Synapse process on the tenant's database, as its documentation recommends; it serves when this resolves. */
  async dedicated(tenant: BenchTenant): Promise<DedicatedSynapse> {
    const { python } = await ensureSynapse(this.version);
    const directory = join(this.directory, "dedicated", tenant.name);
    await mkdir(directory, { recursive: true });
    const synapse = await DedicatedSynapse.start({ python, directory, tenant });
    this.#dedicated.add(synapse);
    return synapse;
  }

  /** The number of PostgreSQL connections of each of these tenants now. */
  async connections(tenants: BenchTenant[]): Promise<number[]> {
    const found = await withConnection(this.admin, "postgres", async (client) => {
      const { rows } = await client.query<{ datname: string; count: number }>(
        "SELECT datname, count(*)::int AS count FROM pg_stat_activity WHERE datname IS NOT NULL GROUP BY datname",
      );
      return new Map(rows.map((row) => [row.datname, row.count]));
    });
    return tenants.map((tenant) => found.get(tenantDatabaseName(tenant.name)) ?? 0);
  }
}
