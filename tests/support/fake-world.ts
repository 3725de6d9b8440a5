import { randomUUID } from "node:crypto";
import { pino } from "pino";
import { SteadyClock, type ClockParts } from "../../src/model/clock.ts";
import { Registry } from "prom-client";
import { Claims } from "../../src/controller/claims/claims.ts";
import { DEFAULT_TIMING, type ControllerContext, type Timing } from "../../src/controller/context.ts";
import { createControllerMetrics } from "../../src/controller/metrics.ts";
import { LoadBook } from "../../src/controller/shards/load-book.ts";
import { Turns } from "../../src/controller/turns.ts";
import { ReservedNames } from "../../src/controller/tenants/reserved-names.ts";
import { UsageBook } from "../../src/controller/usage/usage-book.ts";
import { IdleTenants } from "../../src/controller/sleep/idle-tenants.ts";
import { RouteFeed } from "../../src/controller/routes/route-feed.ts";
import {
  NoCopy,
  type Bytes,
  type DatabaseCopies,
  type OwnDatabases,
  type TenantMediaFiles,
} from "../../src/ports/backups.ts";
import type { ServerLoad } from "../../src/model/database-servers.ts";
import { NotFollowed, type DatabaseMoves } from "../../src/ports/database-moves.ts";
import type { KeptData, Migration, TenantDatabases, UsageQuestion } from "../../src/ports/databases.ts";
import type { ConfigMeaning } from "../../src/model/config-meaning.ts";
import { hostsOf, tryReadConfig } from "../../src/model/config-reading.ts";
import type { Launcher, ProcessState, ReleaseFacts } from "../../src/ports/launcher.ts";
import { StartFailure, UserError, type ErrorCode } from "../../src/model/errors.ts";
import { DEFAULT_CPU_BUDGET, type CpuBudget } from "../../src/model/cpu-budget.ts";
import type { Plans } from "../../src/model/quota.ts";
import { DEFAULT_HIBERNATION, DEFAULT_POLICY, type Policy } from "../../src/model/policy.ts";
import { storageOf } from "../../src/model/storage-name.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import type { MaintenanceWindow } from "../../src/model/fleet.ts";
import type { DatabaseUsage, Holdings } from "../../src/model/tenant-usage.ts";
import type { UsageReading } from "../../src/model/usage-month.ts";
import {
  ShardRefusal,
  ShardUnreachable,
  type Assignment,
  type ShardControl,
  type Stall,
  type TenantIdle,
  type TenantLoad,
  type TenantState,
} from "../../src/ports/shard-control.ts";
import { LocalStore } from "../../src/platforms/local/store/local-store.ts";
import { CachedReader } from "../../src/controller/cached-reader.ts";
import type { Store } from "../../src/ports/store.ts";
import { policyFor, TenantPolicySchema } from "../../src/model/tenant-policy.ts";

/**
 * A world without processes for faults that cannot be caused for real at a chosen instruction: the controller is killed at
 * its n-th call of anything outside itself. Shards, databases with their fence, and the store outlive it, as they do in earnest.
 */
export class FakeWorld {
  /** What tenants may have beside their own names. */
  allowedHosts: readonly string[] = [];
  readonly store = new LocalStore(":memory:");
  readonly shards = new Map<string, FakeShard>();
  /** The fence of each tenant's database. */
  readonly fences = new Map<string, { epoch: number; shard: string; granted?: boolean }>();
  /** Starts of a tenant that are to fail, by shard; "*" for all. */
  readonly failingStarts = new Map<string, { code: string; message: string }>();
  /** Configurations that Synapse finds wrong when it is asked. */
  /** Those that a shard accepts with a warning. */
  readonly dubiousConfigs = new Set<string>();
  readonly wrongConfigs = new Set<string>();
  /** Configurations that pass every check and then cannot be started. */
  readonly failingConfigs = new Map<string, { code: string; message: string }>();
  /** What a shard was given last, by SHARD/TENANT. */
  readonly assignments = new Map<string, Assignment>();
  readonly unknownReleases = new Set<string>();
  /** Those that only their installation shows to be none. */
  readonly uninstallable = new Map<string, { code: ErrorCode; message: string }>();
  /** Ends when the template of databases is made, where that takes time. */
  template: Promise<void> | undefined;
  /** Ends when releases have been installed, where that takes time. */
  installing: Promise<void> | undefined;
  /** What a call of something outside the controller throws, if it is to fail. */
  fault: (call: string, args: readonly unknown[]) => Error | undefined = () => undefined;
  /** Warmed-up preparers that nobody has closed; no more than four at once, as in earnest. */
  readonly preparers = new Set<object>();
  readonly #waiting: (() => void)[] = [];
  /** Hear of the end of a process at once. */
  readonly endListeners = new Set<(shard: string) => void>();
  /** Processor time of a tenant since it started. */
  cpuSecondsOf: (tenant: string, run: string) => number = () => 0;
  requestsOf: (tenant: string, run: string) => number = () => 0;
  /** What a tenant's database says of its use. */
  readingOf: (tenant: string, question: UsageQuestion) => UsageReading = () => ({});
  /** For how long the database server has run statements of a tenant. */
  databaseSecondsOf: (tenant: string) => number = () => 0;
  /** Of a shard's process, which never go down. */
  processSecondsOf: (shard: string, tenants: string[]) => number = () => 0;
  usageOf: (tenant: string) => DatabaseUsage = () => ({
    bytes: 8_000_000,
    connections: 1,
    rowsWritten: 10,
    tempBytes: 0,
  });
  /** What a tenant made its shard hold. */
  holdingsOf: (tenant: string) => Partial<Holdings & Pick<TenantLoad, "heldBackSeconds">> = () => ({});
  /** What shards refused for quotas, since a tenant's start. */
  refusedOf: (tenant: string) => Record<string, number> = () => ({});
  memoryOf: (shard: string) => { bytes: number; limitBytes: number | null } = () => ({ bytes: 1, limitBytes: null });
  /** By how much the machine's clock was set, in milliseconds. */
  clockSetBy = 0;
  /** What is in tenants' databases, where that was exchanged; and in those beside them. */
  readonly contents = new Map<string, string>();
  readonly beside = new Map<string, string>();
  /** What those that were exchanged were made of, until that is settled; and whose former ones are kept. */
  readonly placed = new Map<string, string>();
  readonly former = new Set<string>();
  /** By which restore what is in databases that tenants bring along came there; what backups have, by their ids; why none can be had now. */
  readonly ownRestores = new Map<string, string>();
  readonly backups = new Map<string, string>();
  ownRestoreFails: UserError | undefined;
  /** Databases of our own server. */
  readonly managed = new Map<string, KeptData>();
  /** The database server that a tenant's database is or is to be on; none: there is one alone. */
  readonly databasePlaces = new Map<string, string>();
  /** Servers of databases, and the one that has a tenant's since it was moved. */
  servers: ServerLoad[] = [
    { name: "main", weight: 1, databases: 0 },
    { name: "db-2", weight: 1, databases: 0, maxDatabases: 10 },
  ];
  readonly databasesAt = new Map<string, string>();
  /** Servers that the configuration does not name any more. */
  readonly unknownServers = new Set<string>();
  databaseBytes = 10_000_000;
  /** Copies that follow a tenant's database, each with whose it is. */
  readonly copies = new Map<string, object>();
  /** Until when a copy takes. */
  copying: Promise<void> | undefined;
  /** Called when that is asked for. */
  asked: (() => Promise<void>) | undefined;
  /** Why databases cannot be copied while their tenants run. */
  notOnline: { words: string; isPassing: boolean } | undefined;
  /** What servers say of databases that tenants bring along, by host. */
  readonly databaseIds = new Map<string, string>();
  /** Of every database: releases below cannot read it. */
  schemaCompatVersion = 84;
  /** Shards whose processes are on their way, as on a platform that restarts them automatically; "*" for all. */
  readonly waiting = new Map<string, Omit<Extract<ProcessState, { state: "starting" }>, "state">>();
  readonly log: string[] = [];
  /** At tenants' admin UIs: tenant, user, and when it ends. */
  readonly sessions = new Set<string>();
  lastSessionEnd = 0;
  /** Shards do not answer when they are to end one. */
  keepsSessions = false;
  /** What a shard says of a tenant, where it is not that nobody has used it for an hour. */
  readonly idle = new Map<string, Partial<TenantIdle>>();
  /** Dedicated Synapses, by address. */
  readonly dedicated = new Map<string, FakeDedicated>();

  /** The process of a shard ends, and who started it hears of it. */
  endShard(name: string): void {
    this.shards.delete(name);
    for (const listener of this.endListeners) listener(name);
  }

  /** Tenants that run and own their database: what clients could reach. */
  ownersOf(tenant: string): string[] {
    const shards = [...this.shards.values()]
      .filter((shard) => shard.alive && shard.tenants.get(tenant)?.phase === "running" && this.owns(tenant, shard))
      .map((shard) => shard.name);
    const own = [...this.dedicated.values()].filter((one) => one.tenant === tenant && one.serves());
    return [...shards, ...own.map((one) => one.address)];
  }

  async warmUp(): Promise<Migration> {
    while (this.preparers.size >= PREPARERS_AT_ONCE) await new Promise<void>((go) => this.#waiting.push(go));
    const preparer = {};
    this.preparers.add(preparer);
    return {
      run: async () => {
        if (!this.preparers.has(preparer)) throw new Error("this preparer has been closed");
      },
      close: async () => {
        if (this.preparers.delete(preparer)) this.#waiting.shift()?.();
      },
    };
  }

  owns(tenant: string, shard: FakeShard): boolean {
    const fence = this.fences.get(shard.databases.get(tenant) ?? tenant);
    return fence?.shard === shard.name && fence.epoch === shard.tenants.get(tenant)?.epoch;
  }
}

export class FakeShard {
  readonly name: string;
  readonly release: string;
  readonly tenants = new Map<string, TenantState>();
  /** Databases of the tenants that were started here. */
  readonly databases = new Map<string, string>();
  /** Of each tenant's last start here. */
  readonly runs = new Map<string, string>();
  alive = true;
  /** Stopped by SIGSTOP: alive, and silent. */
  paused = false;
  /** Of its present process. */
  instance = randomUUID() as string;
  /** Of its former processes. */
  readonly stalls: Stall[] = [];
  constructor(name: string, release: string) {
    this.name = name;
    this.release = release;
  }
}

/** A Synapse of a tenant's own: takes the database as soon as it is released, and looks at the fence as the real one does. */
export class FakeDedicated {
  readonly #world: FakeWorld;
  readonly tenant: string;
  readonly address: string;
  readonly revision: number;
  /** Where it is: not there yet, warmed up, or with the database; `gone` releases it. */
  state: "absent" | "waiting" | "running" | "refused" = "absent";
  /** The real one waits two minutes before it gives up. */
  isPatient = false;
  /** What its metrics say. */
  took = { startedAt: 1, cpuSeconds: 0 };
  #epoch = 0;
  constructor(world: FakeWorld, tenant: string, address: string, revision: number) {
    this.#world = world;
    this.tenant = tenant;
    this.address = address;
    this.revision = revision;
    world.dedicated.set(address, this);
  }

  arrive(): void {
    this.state = "waiting";
    this.look();
  }

  look(): void {
    const fence = this.#world.fences.get(this.tenant) ?? { epoch: 0, shard: "", granted: false };
    if (this.state === "running" && !this.serves()) this.state = "refused";
    if (this.state !== "waiting") return;
    if (Math.floor(fence.epoch / 2 ** 32) > this.revision && !fence.granted) {
      if (!this.isPatient) this.state = "refused";
    } else if (fence.shard === "") {
      this.#epoch = Math.max(fence.epoch + 1, this.revision * 2 ** 32 + 1);
      this.#world.fences.set(this.tenant, { epoch: this.#epoch, shard: "dedicated" });
      this.#world.log.push(`dedicated ${this.tenant} ${this.#epoch}`);
      this.state = "running";
    }
  }

  serves(): boolean {
    return this.state === "running" && this.#world.fences.get(this.tenant)?.epoch === this.#epoch;
  }

  /** SIGTERM, or a death without a word. */
  leave(released = true): void {
    if (this.serves() && released) this.#world.fences.set(this.tenant, { epoch: this.#epoch, shard: "" });
    this.state = "absent";
  }
}

/** One run of a controller in the world: its calls end when it is killed. */
export class FakeProcess {
  readonly context: ControllerContext;
  readonly #world: FakeWorld;
  #callsLeft: number;
  calls = 0;
  killed = false;
  #onKill: () => void = () => {};
  readonly whenKilled = new Promise<void>((done) => (this.#onKill = done));

  constructor(
    world: FakeWorld,
    options: {
      killAtCall?: number;
      policy?: Partial<Policy>;
      maintenanceWindows?: MaintenanceWindow[];
      cpuBudget?: Partial<CpuBudget>;
      plans?: Plans;
      timing?: Partial<Timing>;
    } = {},
  ) {
    this.#world = world;
    this.#callsLeft = options.killAtCall ?? Number.POSITIVE_INFINITY;
    const store = this.#guarded<Store>(world.store, ["watch", "watchEvents"]);
    this.context = {
      store,
      reader: new CachedReader(store),
      launcher: this.#guarded(
        fakeLauncher(world, (client) => this.#guarded(client, [])),
        ["log", "onEnded"],
      ),
      databases: this.#guarded(fakeDatabases(world), ["learn", "facts", "address"]),
      feed: new RouteFeed(),
      usage: new UsageBook(),
      loads: new LoadBook(),
      maintenanceWindows: options.maintenanceWindows ?? [],
      shardClients: new Map(),
      idle: new IdleTenants(new SteadyClock(clockOf(world))),
      claims: new Claims(
        (tenant) => fakeDatabases(world).address(tenant),
        new SteadyClock(clockOf(world)),
        () => world.allowedHosts,
      ),
      cpuBudget: { ...DEFAULT_CPU_BUDGET, ...options.cpuBudget },
      plans: options.plans ?? {},
      // Nobody uses its tenants: they would all fall asleep.
      policy: {
        ...DEFAULT_POLICY,
        avgShardsLoadRedistributionThreshold: 0,
        hibernation: { ...DEFAULT_HIBERNATION, afterIdleSeconds: 0 },
        ...options.policy,
      },
      clock: new SteadyClock(clockOf(world)),
      timing: {
        ...DEFAULT_TIMING,
        shardPoll: 0.05,
        loadEvery: 0.05,
        shardLostAfter: 0.3,
        retryFirst: 0.02,
        retryMost: 0.2,
        copiesEvery: 0.02,
        ...options.timing,
      },
      metrics: createControllerMetrics(new Registry()),
      log: pino({ level: process.env["TEST_LOG"] ?? "silent" }),
      environment: (tenant) => ({
        publicBaseUrl: "http://x/",
        database: fakeDatabases(world).address(tenant),
        mediaPath: "/m",
        federationCaFiles: [],
        allowLocalFederation: false,
        policy: policyFor(TenantPolicySchema.parse({}), "any"),
      }),
      restored: {
        copies: this.#guarded(fakeCopies(world), []),
        media: this.#guarded(fakeMedia(world), []),
      },
      ownRestores: {
        databases: this.#guarded(fakeOwnDatabases(world), []),
        read: async (_storage, backup) => ({ counts: NOTHING, dump: oneChunk(world.backups.get(backup) ?? "") }),
      },
      databaseMoves: this.#guarded(fakeDatabaseMoves(world), []),
      answers: async (address) => {
        world.dedicated.get(address)?.look();
        return world.dedicated.get(address)?.serves() ?? false;
      },
      processTime: async (address) => {
        const at = address.replace(/:\d+$/, "");
        const found = [...world.dedicated.values()].find((one) => one.serves() && one.address.startsWith(`${at}:`));
        if (!found) throw new Error(`nobody tells metrics at ${address}`);
        return { ...found.took };
      },
      asks: async ({ address, serverName }) => {
        const [name, epoch] = address.split(":");
        const shard = world.shards.get(name ?? "");
        const isThere = [...(shard?.tenants.values() ?? [])].some(
          (tenant) => tenant.serverName === serverName && String(tenant.epoch) === epoch,
        );
        const said: [string, string][] = [["/_matrix/key/v2/server", `keys of ${serverName} ${epoch}`]];
        return Object.fromEntries(shard && !shard.paused && isThere ? said : []);
      },
      deletions: {
        records: this.#guarded(world.store.deleted, []),
        keepDays: 30,
        lock: new Turns(),
        reserved: new ReservedNames(),
        mediaOf: async (tenant) =>
          world.managed.has(tenant) ? { files: 3, bytes: 300, sha256: "of the files" } : undefined,
      },
      removeMedia: async (storage) => void world.log.push(`media removed ${storage}`),
    };
  }

  kill(): void {
    this.killed = true;
    this.#onKill();
  }

  /** Half of the kills fall before the call has its effect, half between the effect and the answer. */
  #guarded<T extends object>(target: T, synchronous: string[]): T {
    return new Proxy(target, {
      get: (object, key) => {
        const value: unknown = Reflect.get(object, key);
        if (typeof value !== "function") return value;
        if (synchronous.includes(String(key))) {
          return (...args: unknown[]) => {
            if (key === "watch")
              return value.call(
                object,
                (...heard: unknown[]) => this.killed || (args[0] as (...a: unknown[]) => void)(...heard),
              );
            return value.apply(object, args);
          };
        }
        return async (...args: unknown[]) => {
          if (this.killed) return new Promise(() => {});
          this.calls += 1;
          this.#callsLeft -= 0.5;
          if (this.#callsLeft <= 0) this.kill();
          if (this.killed) return new Promise(() => {});
          const fault = this.#world.fault(String(key), args);
          if (fault) throw fault;
          const answer = await value.apply(object, args);
          this.#callsLeft -= 0.5;
          if (this.#callsLeft <= 0) this.kill();
          return this.killed ? new Promise(() => {}) : answer;
        };
      },
    });
  }
}

/** What of the copies a start uses. */
function fakeCopies(world: FakeWorld): DatabaseCopies {
  const { placed } = world;
  const exchange: DatabaseCopies["exchange"] = async (tenant, { epoch, backup }) => {
    const beside = world.beside.get(tenant);
    if (beside === undefined && placed.get(tenant) === backup) return;
    if (beside === undefined) throw new NoCopy(`there is no database beside that of ${tenant}`);
    const runs = world.ownersOf(tenant);
    if (runs.length > 0) throw new Error(`${tenant} is exchanged while ${runs.join()} runs it`);
    world.beside.delete(tenant);
    world.contents.set(tenant, beside);
    placed.set(tenant, backup);
    // Of an earlier time, and of nobody.
    world.fences.set(tenant, { epoch, shard: "" });
  };
  const settle = async (tenant: string) => void placed.delete(tenant);
  return {
    exchange,
    settle,
    hasFormer: async (tenant: string) => world.former.has(tenant),
  } as unknown as DatabaseCopies;
}

const NOTHING = { users: 0, devices: 0, rooms: 0, events: 0, media: 0 };

async function* oneChunk(text: string): Bytes {
  yield Buffer.from(text);
}

/** What of them a start uses: each exchange happens as a whole, or not at all. */
function fakeOwnDatabases(world: FakeWorld): OwnDatabases {
  return {
    replace: async ({ metadata: { name } }, _secrets, { id, epoch }, dump, check) => {
      if (world.ownRestores.get(name) === id) return;
      const runs = world.ownersOf(name);
      if (runs.length > 0) throw new Error(`${name} is restored while ${runs.join()} runs it`);
      if (world.ownRestoreFails) throw world.ownRestoreFails;
      let text = "";
      for await (const chunk of dump) text += Buffer.from(chunk).toString();
      check({ counts: NOTHING, schemaVersion: 84, schemaCompatVersion: world.schemaCompatVersion });
      world.contents.set(name, text);
      world.ownRestores.set(name, id);
      world.fences.set(name, { epoch, shard: "" });
    },
    last: async ({ metadata: { name } }) => world.ownRestores.get(name),
  } as Partial<OwnDatabases> as OwnDatabases;
}

/** Databases on several servers, each in one place at a time. */
function fakeDatabaseMoves(world: FakeWorld): DatabaseMoves {
  // Copies are a process's own, and end with it.
  const mine = {};
  const ends = new Map<string, () => void>();
  return {
    whyNotOnline: async () => {
      await world.asked?.();
      return world.notOnline;
    },
    follow: async (tenant, _secrets, { onProgress, signal }) => {
      const name = storageOf(tenant);
      signal.throwIfAborted();
      onProgress({ step: "Copying", bytes: 1024, totalBytes: world.databaseBytes });
      world.copies.set(name, mine);
      const ended = new Promise<never>((_resolve, reject) => {
        const end = () => reject(new UserError("Unavailable", "the copy was ended"));
        ends.set(name, end);
        signal.addEventListener("abort", end, { once: true });
      });
      ended.catch(() => {});
      await Promise.race([world.copying, ended]);
    },
    leave: async (name) => {
      if (world.copies.get(name) === mine) world.copies.delete(name);
      ends.get(name)?.();
    },
    cleanCopies: async () => {
      for (const [name, owner] of world.copies) if (owner !== mine) world.copies.delete(name);
    },
    servers: async () => world.servers,
    bytes: async () => world.databaseBytes,
    move: async ({ metadata, status }, _secrets, { to, epoch, online = false }) => {
      const name = storageOf({ metadata, status });
      const owners = world.ownersOf(metadata.name);
      if (owners.length > 0) throw new Error(`the database of ${name} is moved while ${owners.join()} runs it`);
      const isFollowed = world.copies.get(name) === mine && world.copies.delete(name);
      if (online && !isFollowed && world.databasesAt.get(name) !== to) throw new NotFollowed("no copy follows it");
      const at = world.databasesAt.get(name) ?? "main";
      const recorded = status.databaseServer ?? "main";
      if (at !== recorded && at !== to) throw new Error(`the database of ${name} is on ${at}, not on ${recorded}`);
      world.databasesAt.set(name, to);
      world.fences.set(name, { epoch, shard: "" });
      return { tables: 5, rows: 500, seconds: 0.5 };
    },
    forget: async (tenant, server) => void world.log.push(`former database of ${tenant} on ${server} removed`),
  };
}

function fakeMedia(world: FakeWorld): TenantMediaFiles {
  const admitStaged = async (tenant: string) => void world.log.push(`media of ${tenant} admitted`);
  return { admitStaged } as unknown as TenantMediaFiles;
}

const PREPARERS_AT_ONCE = 4;

/** A machine's clock that can be set, beside a monotonic one that cannot. */
function clockOf(world: FakeWorld): ClockParts {
  return {
    wall: () => Date.now() + world.clockSetBy,
    monotonic: () => performance.now(),
    after: (milliseconds, run) => {
      const timer = setTimeout(run, milliseconds);
      return () => clearTimeout(timer);
    },
  };
}

export function fakeLauncher(world: FakeWorld, guard: (client: ShardControl) => ShardControl): Launcher {
  return {
    checkRelease: async (release) => {
      if (world.unknownReleases.has(release)) throw new UserError("UnknownRelease", `there is no Synapse ${release}`);
      return undefined;
    },
    prepareRelease: async (release, onProgress) => {
      if (world.installing) onProgress(`downloading Synapse ${release}`);
      await world.installing;
      world.installing = undefined;
      const problem = world.uninstallable.get(release);
      if (problem) throw new UserError(problem.code, problem.message);
      return { release, schemaVersion: 94, schemaCompatVersion: 84 };
    },
    start: async (name, release) => {
      const present = world.shards.get(name);
      if (present?.alive) return;
      world.shards.set(name, new FakeShard(name, release));
    },
    observe: async (name): Promise<ProcessState> => {
      const shard = world.shards.get(name);
      const waiting = world.waiting.get(name) ?? world.waiting.get("*");
      if (shard && waiting) return { state: "starting", ...waiting };
      return shard?.alive ? { state: "running", address: `http://${name}` } : { state: "absent" };
    },
    onEnded: (listener) => {
      world.endListeners.add(listener);
      return () => world.endListeners.delete(listener);
    },
    stop: async (name) => void world.shards.delete(name),
    kill: async (name) => void world.shards.delete(name),
    remove: async (name) => {
      if (world.shards.get(name)?.alive) throw new Error(`shard ${name} still runs`);
      world.shards.delete(name);
    },
    client: async (name) => {
      if (!world.shards.has(name)) throw new Error(`there is no shard ${name}`);
      return guard(fakeClient(world, name));
    },
    async *log(name, { tail }) {
      const lines = [`shard ${name} starts`, `shard ${name} is controlled at http://${name}`];
      yield* tail === undefined ? lines : lines.slice(lines.length - tail);
    },
  };
}

export function fakeClient(world: FakeWorld, name: string): ShardControl {
  const shard = (): FakeShard => {
    const found = world.shards.get(name);
    if (!found?.alive || found.paused) throw new ShardUnreachable(name, new Error("silent"));
    return found;
  };
  return {
    state: async () => ({
      name,
      release: shard().release,
      instance: shard().instance,
      schemaVersion: 94,
      schemaCompatVersion: 84,
      tenants: [...shard().tenants.values()],
      stalls: shard().stalls,
    }),
    startTenant: async (tenant, assignment: Assignment) => {
      const here = shard();
      const running = here.tenants.get(tenant);
      if (running?.phase === "running" && running.epoch === assignment.epoch) return running;
      const failure =
        world.failingConfigs.get(assignment.overrides) ?? world.failingStarts.get(name) ?? world.failingStarts.get("*");
      if (failure) throw new ShardRefusal(422, failure.code, failure.message);
      if (running && running.epoch > assignment.epoch)
        throw new ShardRefusal(409, "StaleEpoch", `${tenant} runs here with a higher epoch`);
      if (running && running.epoch < assignment.epoch)
        throw new ShardRefusal(409, "AlreadyRunning", `${tenant} runs here already`);
      const database = databaseIn(assignment) ?? tenant;
      const fence = world.fences.get(database);
      if (fence && (fence.epoch > assignment.epoch || (fence.epoch === assignment.epoch && fence.shard !== name))) {
        throw new ShardRefusal(409, "Fenced", `the database of ${tenant} belongs to ${fence.shard}`);
      }
      here.databases.set(tenant, database);
      world.fences.set(database, { epoch: assignment.epoch, shard: name });
      world.assignments.set(`${name}/${tenant}`, assignment);
      world.log.push(`start ${tenant} ${name} ${assignment.epoch}`);
      const state: TenantState = {
        name: tenant,
        serverName: assignment.serverName,
        phase: "running",
        epoch: assignment.epoch,
        address: `${name}:${assignment.epoch}`,
        error: null,
        meaning: fakeMeaning(assignment),
      };
      here.tenants.set(tenant, state);
      here.runs.set(tenant, randomUUID());
      return state;
    },
    checkTenant: async (_tenant, assignment: Assignment) => {
      shard();
      if (assignment.epoch < 1) throw new ShardRefusal(422, "InvalidConfig", "epoch is not a whole number from 1");
      if (world.wrongConfigs.has(assignment.overrides))
        throw new ShardRefusal(422, "InvalidConfig", `${assignment.overrides}: no such setting`);
      return {
        meaning: fakeMeaning(assignment),
        warnings: world.dubiousConfigs.has(assignment.overrides) ? [`${assignment.overrides}: unknown`] : [],
      };
    },
    stopTenant: async (tenant, _drain, options) => {
      const here = shard();
      const owned = here.tenants.get(tenant)?.phase === "running" && world.owns(tenant, here);
      const used = here.tenants.has(tenant) ? loadOf(world, here, tenant) : null;
      const absent = !here.tenants.delete(tenant);
      if (!absent) world.log.push(`stop ${tenant} ${name}`);
      const released = owned && options?.release === true;
      const database = here.databases.get(tenant) ?? tenant;
      const fence = world.fences.get(database);
      if (released && fence) world.fences.set(database, { ...fence, shard: "" });
      return { absent, released, position: owned ? "s1_1_1" : null, used };
    },
    idle: async (tenant) => {
      if (!shard().tenants.has(tenant)) throw new ShardRefusal(404, "NotFound", `there is no tenant ${tenant} here`);
      return { inFlight: 0, lastUse: 3_600, keepsAwake: [], nextDue: null, ...world.idle.get(tenant) };
    },
    greet: async (tenant) => {
      if (!shard().tenants.has(tenant)) throw new ShardRefusal(404, "NotFound", `there is no tenant ${tenant} here`);
      world.log.push(`greet ${tenant} ${name}`);
      return 2;
    },
    changeUser: async (tenant, localpart, change) => {
      if (!shard().tenants.has(tenant)) throw new ShardRefusal(404, "NotFound", `there is no tenant ${tenant} here`);
      const userId = `@${localpart}:${shard().tenants.get(tenant)?.serverName}`;
      if (localpart === "nobody") throw new ShardRefusal(404, "UserNotFound", `there is no user ${userId}`);
      if (localpart === "kept") throw new ShardRefusal(409, "UserRefused", "deactivation of this user is forbidden");
      world.log.push(`change ${userId} ${change.kind} ${name}`);
      return userId;
    },
    pingAppService: async (tenant, id) => {
      if (!shard().tenants.has(tenant)) throw new ShardRefusal(404, "NotFound", `there is no tenant ${tenant} here`);
      if (id === "unknown") throw new ShardRefusal(404, "AppServiceNotFound", `there is no application service ${id}`);
      return id === "away" ? { problem: "it did not answer in time" } : { milliseconds: 12 };
    },
    metricsOf: async (tenant) => {
      if (!shard().tenants.has(tenant)) throw new ShardRefusal(404, "NotFound", `there is no tenant ${tenant} here`);
      world.log.push(`metrics ${tenant} ${name}`);
      return `synapse_storage_events_persisted_events_total{server_name="${shard().tenants.get(tenant)?.serverName}"} 1\n`;
    },
    openSession: async (tenant, localpart, seconds) => {
      if (!shard().tenants.has(tenant)) throw new ShardRefusal(404, "NotFound", `there is no tenant ${tenant} here`);
      const userId = `@${localpart}:${shard().tenants.get(tenant)?.serverName}`;
      if (localpart === "nobody") throw new ShardRefusal(404, "UserNotFound", `there is no user ${userId}`);
      if (localpart === "kept") throw new ShardRefusal(409, "UserRefused", `${userId} is no administrator`);
      world.log.push(`session ${userId} ${seconds} ${name}`);
      const until = Math.max(Date.now() + world.clockSetBy + seconds * 1000, world.lastSessionEnd + 1);
      world.lastSessionEnd = until;
      world.sessions.add(`${tenant} ${localpart} ${until}`);
      return { userId, token: `token of ${localpart}`, until };
    },
    endSessions: async (tenant, sessions) => {
      if (!shard().tenants.has(tenant)) throw new ShardRefusal(404, "NotFound", `there is no tenant ${tenant} here`);
      if (world.keepsSessions) throw new ShardUnreachable(name, `shard ${name} does not answer`);
      return sessions.filter(({ user, until }) => world.sessions.delete(`${tenant} ${user} ${until}`)).length;
    },
    load: async () => {
      const present = [...shard().tenants.keys()];
      const tenants = present.map((tenant) => [tenant, loadOf(world, shard(), tenant)] as const);
      const process = {
        cpuSeconds: world.processSecondsOf(name, present),
        uptimeSeconds: 1,
        starvedSeconds: 0,
        memory: world.memoryOf(name),
      };
      return { tenants: Object.fromEntries(tenants), process };
    },
    get preparers(): never {
      throw new Error("preparers are behind the databases, which are fakes here");
    },
    close: async () => {},
  };
}

/** As the platform gave it; of one that the tenant brings along the fence is kept by the tenant's name. */
function databaseIn({ base, overrides }: Assignment): string | undefined {
  if (tryReadConfig(overrides)?.database) return undefined;
  return (base["database"] as { args?: { dbname?: string } } | undefined)?.args?.dbname;
}

/** Of one start of a tenant. */
function loadOf(world: FakeWorld, { instance, runs, tenants }: FakeShard, tenant: string): TenantLoad {
  const run = runs.get(tenant) ?? instance;
  return {
    ...NO_LOAD,
    ...world.holdingsOf(tenant),
    refused: world.refusedOf(tenant),
    run,
    epoch: tenants.get(tenant)?.epoch ?? 0,
    cpuSeconds: world.cpuSecondsOf(tenant, run),
    requests: world.requestsOf(tenant, run),
    ...useOf(world, tenant),
  };
}

const NO_LOAD = {
  cpuSeconds: 0,
  requests: 0,
  responseBytes: 0,
  databaseRows: 0,
  imageSeconds: 0,
  heldBackSeconds: 0,
  cacheEntries: 0,
};

/** As a shard's checker reads it, for the few options that tests use. */
export function fakeMeaning({ serverName, overrides }: Assignment): ConfigMeaning {
  const { database: own, publicBaseUrl, hosts } = tryReadConfig(overrides) ?? {};
  return {
    database: own ? { host: own.host, port: own.port, name: own.name, user: own.user } : null,
    hosts: hostsOf(serverName, publicBaseUrl, hosts),
    publicBaseUrl: publicBaseUrl ?? `https://${serverName}/`,
    bucket: null,
    authenticationService: /^matrix_authentication_service: *\{enabled: true/m.test(overrides),
  };
}

/** Tenants' databases without a server; under the same contract (tests/ports/). */
export function fakeDatabases(world: FakeWorld): TenantDatabases {
  const known = new Map<string, ReleaseFacts>();
  return {
    learn: (facts) => void known.set(facts.release, facts),
    facts: (release) => known.get(release),
    provision: async ({ spec, ...tenant }, secrets) => {
      const name = storageOf(tenant);
      const { status } = tenant;
      await world.template;
      if (status.databaseKept && !world.managed.get(name)?.hasDatabase)
        throw new StartFailure("DatabaseMissing", `the database of ${name} was kept, and is not there`);
      const { serverName, config } = spec;
      world.managed.set(name, { hasDatabase: true, keepsake: { serverName, secrets, config } });
      const epoch = world.fences.get(name)?.epoch ?? 0;
      return { epoch, kept: epoch > 0 };
    },
    keep: async ({ spec: { serverName, config }, ...tenant }, secrets) => {
      const name = storageOf(tenant);
      const hasDatabase = world.managed.get(name)?.hasDatabase ?? false;
      world.managed.set(name, { hasDatabase, keepsake: { serverName, secrets, config } });
    },
    keptData: async (tenant) => world.managed.get(tenant) ?? { hasDatabase: false },
    drop: async (tenant) => {
      world.fences.delete(tenant);
      world.managed.delete(tenant);
    },
    fenceOff: async (tenant: Tenant) => {
      const fence = world.fences.get(storageOf(tenant));
      if (fence) world.fences.set(storageOf(tenant), { epoch: fence.epoch + 1, shard: "-" });
    },
    fence: async ({ metadata, status }) => {
      const { name } = metadata;
      const fence = world.fences.get(storageOf({ metadata, status }));
      const own = [...world.dedicated.values()].filter((one) => one.tenant === name);
      const waiting = own.some((one) => one.state === "waiting");
      if (!fence) return undefined;
      return { epoch: fence.epoch, owner: fence.shard, waiting, connected: world.ownersOf(name).length > 0 };
    },
    release: async ({ metadata, status }, _secrets, owner) => {
      const name = storageOf({ metadata, status });
      const fence = world.fences.get(name);
      if (fence?.shard !== owner || fence.epoch >= status.epoch) return false;
      world.fences.set(name, { epoch: status.epoch, shard: "" });
      return true;
    },
    grant: async (tenant) => {
      const fence = world.fences.get(storageOf(tenant));
      if (fence?.shard === "") fence.granted = true;
    },
    describe: async () => ({ schemaVersion: 94, schemaCompatVersion: world.schemaCompatVersion, epoch: 0 }),
    migration: () => world.warmUp(),
    usage: async (tenants) =>
      new Map(tenants.filter((tenant) => world.managed.has(tenant)).map((tenant) => [tenant, world.usageOf(tenant)])),
    activeSeconds: async (tenants) =>
      new Map(
        tenants.filter((tenant) => world.managed.has(tenant)).map((name) => [name, world.databaseSecondsOf(name)]),
      ),
    listUsers: async ({ spec: { serverName } }, _secrets, { limit }) => {
      const account = { admin: false, deactivated: false, locked: false, appservice: false };
      const items = ["ada", "bob"].map((user) => ({ userId: `@${user}:${serverName}`, ...account }));
      return { items: items.slice(0, limit), total: items.length };
    },
    readUsage: async ({ metadata: { name } }, _secrets, question) => world.readingOf(name, question),
    endOverdue: async () => [],
    identify: async ({ spec }) => world.databaseIds.get(tryReadConfig(spec.config)?.database?.host ?? ""),
    address: ({ metadata, status }) => {
      const { databaseServer = "127.0.0.1" } = status;
      const name = storageOf({ metadata, status });
      if (world.unknownServers.has(databaseServer))
        throw new StartFailure("DatabaseServerUnknown", `its database is on the server ${databaseServer}`);
      return { host: databaseServer, port: 1, name, user: name };
    },
    placeFor: async (tenant) => world.databasePlaces.get(tenant),
  };
}

/** Nobody had used it for an hour when the process began, unless a test says otherwise. */
function useOf(world: FakeWorld, tenant: string): { inFlight: number; lastUse: number } {
  const { inFlight = 0, lastUse = 3_600 + performance.now() / 1000 } = world.idle.get(tenant) ?? {};
  return { inFlight, lastUse };
}
