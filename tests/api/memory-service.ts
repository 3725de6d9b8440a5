import type {
  ChangedUser,
  ClusterService,
  ClusterStatus,
  CreateTenantRequest,
  HistoryQuery,
  LogOptions,
  MoveDatabaseOptions,
  MoveTenantOptions,
  NamedPlan,
  RegisterUserRequest,
  ShardOverview,
  TenantChange,
  TenantQuotas,
  TenantRest,
  UpdateTenantRequest,
} from "../../src/controller/service/cluster-service.ts";
import type { AdminEntrance } from "../../src/controller/service/admin-access.ts";
import { problemsOf, type Problem } from "../../src/controller/service/problems.ts";
import {
  adminAccessView,
  type AdminAccess,
  type AdminAccessView,
  type AdminSession,
} from "../../src/model/admin-access.ts";
import type { AppServicePing } from "../../src/model/app-service.ts";
import { UserError } from "../../src/model/errors.ts";
import { changedLabels } from "../../src/model/labels.ts";
import { deletedTenant, type DeletedTenant, type PurgeProof } from "../../src/model/deleted-tenant.ts";
import { DEFAULT_POLICY } from "../../src/model/policy.ts";
import { worstOf, type CheckReport, type Finding } from "../../src/model/tenant-check.ts";
import { dnsOf, type TenantDns } from "../../src/model/tenant-dns.ts";
import { ownUrlOf } from "../../src/model/homeserver-config.ts";
import type { TenantUsage } from "../../src/model/tenant-usage.ts";
import type { History, Sample } from "../../src/model/history.ts";
import { historyOf } from "../../src/model/history.ts";
import { namedFor } from "../../src/controller/history/sample.ts";
import type { UsageMonth } from "../../src/model/usage-month.ts";
import type { ClusterEvent } from "../../src/model/event.ts";
import type { ConfigVerdict } from "../../src/model/config-verdict.ts";
import type { ServerLoad } from "../../src/model/database-servers.ts";
import type { Move, MoveResult } from "../../src/model/move.ts";
import type { UserChange, UserPage, UserQuery, UserSummary } from "../../src/model/user.ts";
import type { WakeReason } from "../../src/model/sleep.ts";
import type { Shard } from "../../src/model/shard.ts";
import { newTenantStatus, type Tenant, type TenantStatus } from "../../src/model/tenant.ts";

const CREATED = "2026-11-23T10:00:00.000Z";
const CAPACITY = 2;

/** A cluster of nothing but objects, whose course a test directs: `onCreate` and its like decide what comes of a wish. */
/** Of every session of an administrator. */
export const ADMIN_TOKEN = "syt_of_an_administrator";

export class MemoryService implements ClusterService {
  readonly tenants = new Map<string, Tenant>();
  readonly shards = new Map<string, Shard>();
  readonly deleted = new Map<string, DeletedTenant>();
  readonly purges: PurgeProof[] = [];
  readonly usage: UsageMonth[] = [];
  /** As the controller would have taken them down. */
  readonly samples: Sample[] = [];
  readonly plans: NamedPlan[] = [];
  readonly log: ClusterEvent[] = [];
  readonly users: { tenant: string; request: RegisterUserRequest }[] = [];
  /** Of every configuration that is accepted. */
  configWarnings: string[] = [];
  /** Of every tenant. */
  readonly accounts: UserSummary[] = [];
  readonly userChanges: { userId: string; change: UserChange }[] = [];
  readonly logLines: string[] = ["first line", "second line", "third line"];
  /** Streams that are open now. */
  openStreams = 0;
  problems: string[] = [];
  refusesUsers = false;
  /** What one check after the other finds; then nothing. */
  readonly findings: Finding[][] = [];
  /** Why no tenant can sleep. */
  keepsAwake: string[] = [];
  readonly wakes: { tenant: string; reason: WakeReason }[] = [];
  /** Why a new tenant waits. */
  newTenantReason = "";
  /** Where administrators come in. */
  adminEntrance: AdminEntrance | undefined;
  /** Thrown by the next call of any method. */
  failure: Error | undefined;
  onCreate: (tenant: Tenant) => void = (tenant) => this.run(tenant, "1.163.2-0");
  onUpdate: (tenant: Tenant) => void = (tenant) => this.run(tenant, tenant.status.shard ?? "1.163.2-0");
  onMove: (tenant: Tenant, move: Move) => void = (tenant, move) => this.endMove(tenant, move, "Succeeded");
  onDelete: (tenant: Tenant) => void = (tenant) => {
    const { name } = tenant.metadata;
    this.tenants.delete(name);
    const dates = { deletedAt: CREATED, keptUntil: "2026-12-23T10:00:00.000Z", managedDatabase: true };
    if (tenant.spec.reclaimPolicy === "Retain") this.deleted.set(name, deletedTenant(tenant, dates));
  };
  readonly #wakers = new Set<() => void>();
  #moves = 0;

  addShard(name: string, status: Partial<Shard["status"]> = {}): Shard {
    const shard: Shard = {
      kind: "Shard",
      metadata: { name, resourceVersion: "1", generation: 1, creationTimestamp: CREATED },
      spec: { release: name.split("-", 1)[0] ?? "" },
      status: {
        phase: "Ready",
        reason: "",
        message: "",
        address: "http://127.0.0.1:9001",
        load: 0.25,
        failures: 0,
        ...status,
      },
    };
    this.shards.set(name, shard);
    return shard;
  }

  addTenant(name: string, status: Partial<TenantStatus> = {}, config = ""): Tenant {
    const tenant: Tenant = {
      kind: "Tenant",
      metadata: { name, resourceVersion: "1", generation: 1, creationTimestamp: CREATED },
      spec: { serverName: `${name}.localhost`, release: "1.163.2", config, reclaimPolicy: "Retain" },
      status: { ...newTenantStatus(), ...status },
    };
    this.tenants.set(name, tenant);
    return tenant;
  }

  run(tenant: Tenant, shard: string): void {
    const { status, metadata } = tenant;
    Object.assign(status, { phase: "Running", reason: "", message: "", shard, address: "127.0.0.1:9100" });
    status.observedGeneration = metadata.generation;
    status.epoch += 1;
    status.provisioned = true;
  }

  fail(tenant: Tenant, reason: string, message: string): void {
    Object.assign(tenant.status, { phase: "Failed", reason, message, failures: 1 });
    tenant.status.observedGeneration = tenant.metadata.generation;
  }

  endMove(tenant: Tenant, move: Move, outcome: MoveResult["outcome"], message?: string): void {
    const { id, from, to, reason } = move;
    const numbers = { blackoutSeconds: 0.412, parkedRequests: 3, failedRequests: 0 };
    tenant.status.lastMove = { id, from, to, reason, outcome, message, finishedAt: CREATED, ...numbers };
    delete tenant.status.move;
    this.run(tenant, outcome === "Succeeded" ? to : from);
  }

  addEvent(event: Omit<ClusterEvent, "id" | "time">, time = new Date().toISOString()): void {
    this.log.push({ id: this.log.length + 1, time, ...event });
    this.wake();
  }

  addLogLine(line: string): void {
    this.logLines.push(line);
    this.wake();
  }

  async createTenant(request: CreateTenantRequest): Promise<Tenant> {
    this.#mayFail();
    if (this.tenants.has(request.name))
      throw new UserError("AlreadyExists", `there is a tenant ${request.name} already`);
    const tenant = this.addTenant(request.name, { reason: this.newTenantReason }, request.config);
    Object.assign(tenant.spec, {
      serverName: request.domain ?? request.serverName ?? tenant.spec.serverName,
      ...(request.domain === undefined ? {} : { config: `public_baseurl: https://matrix.${request.domain}/\n` }),
      release: request.release ?? tenant.spec.release,
      ...(request.labels ? { labels: request.labels } : {}),
      ...(request.plan === undefined ? {} : { plan: request.plan }),
      ...(request.quotas ? { quotas: request.quotas } : {}),
      ...(request.authenticationService ? { authenticationService: request.authenticationService } : {}),
    });
    const answer = structuredClone(tenant);
    this.onCreate(tenant);
    return answer;
  }

  async updateTenant(name: string, request: UpdateTenantRequest): Promise<Tenant> {
    const tenant = this.#tenant(name);
    const { labels, plan, isolation, ...rest } = request;
    Object.assign(tenant.spec, rest, plan ? { plan } : {});
    if (isolation === "dedicated") tenant.spec.isolation = isolation;
    else if (isolation) delete tenant.spec.isolation;
    if (plan === null) delete tenant.spec.plan;
    if (labels) tenant.spec.labels = changedLabels(tenant.spec.labels, labels);
    tenant.metadata.generation += 1;
    const answer = structuredClone(tenant);
    this.onUpdate(tenant);
    return answer;
  }

  async deleteTenant(name: string, { purge }: { purge: boolean }): Promise<Tenant> {
    const tenant = this.#tenant(name);
    if (purge) tenant.spec.reclaimPolicy = "Delete";
    tenant.metadata.deletionTimestamp = CREATED;
    tenant.status.phase = "Deleting";
    const answer = structuredClone(tenant);
    this.onDelete(tenant);
    return answer;
  }

  async listDeleted(): Promise<DeletedTenant[]> {
    this.#mayFail();
    return [...this.deleted.values()];
  }

  async undeleteTenant(name: string): Promise<Tenant> {
    const record = this.#deleted(name);
    this.deleted.delete(name);
    const tenant = this.addTenant(name, {}, record.spec.config);
    const answer = structuredClone(tenant);
    this.onCreate(tenant);
    return answer;
  }

  async purgeTenant(name: string): Promise<PurgeProof> {
    const { spec, createdAt, deletedAt } = this.#deleted(name);
    this.deleted.delete(name);
    const removed = {
      database: { name: `tenant_${name}`, bytes: 9_000_000 },
      media: { files: 3, bytes: 300, sha256: "f00d" },
      signingKey: { sha256: "beef" },
    };
    const { serverName } = spec;
    const what = { name, serverName, createdAt, deletedAt, purgedAt: CREATED, reason: "Requested" as const, removed };
    const proof = { ...what, previous: this.purges.at(-1)?.sha256 ?? "", sha256: `hash-${this.purges.length + 1}` };
    this.purges.push(proof);
    return proof;
  }

  async listPurges(limit: number): Promise<PurgeProof[]> {
    return this.purges.slice(-limit);
  }

  async getTenant(name: string): Promise<Tenant> {
    return structuredClone(this.#tenant(name));
  }

  async listTenants(): Promise<Tenant[]> {
    this.#mayFail();
    return [...this.tenants.values()].toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name));
  }

  async *watchTenants({ signal }: { signal?: AbortSignal }): AsyncGenerator<TenantChange> {
    this.openStreams += 1;
    const told = new Map<string, string>();
    try {
      for (let isFirst = true; !signal?.aborted; isFirst = false) {
        for (const name of told.keys()) if (!this.tenants.has(name) && told.delete(name)) yield { type: "Gone", name };
        for (const [name, tenant] of this.tenants) {
          const text = JSON.stringify(tenant);
          if (told.get(name) === text) continue;
          told.set(name, text);
          yield { type: "Present", tenant: structuredClone(tenant) };
        }
        if (isFirst) yield { type: "Synced" };
        await this.#nextChange(signal);
      }
    } finally {
      this.openStreams -= 1;
    }
  }

  async moveTenant(name: string, { to }: MoveTenantOptions = {}): Promise<Move> {
    const tenant = this.#tenant(name);
    const from = tenant.status.shard ?? "";
    const target = to ?? [...this.shards.keys()].find((shard) => shard !== from);
    if (target === undefined)
      throw new UserError("NoPlace", `no other shard of ${tenant.spec.release} has a place for ${name}`);
    if (!this.shards.has(target)) throw new UserError("NotFound", `there is no shard ${target}`);
    this.#moves += 1;
    const move: Move = {
      id: `move-${this.#moves}`,
      from,
      to: target,
      reason: "Requested",
      step: "Preparing",
      requestedAt: CREATED,
    };
    tenant.status.move = move;
    tenant.status.phase = "Moving";
    this.onMove(tenant, move);
    return move;
  }

  async listDatabaseServers(): Promise<ServerLoad[]> {
    this.#mayFail();
    return [
      { name: "main", weight: 1, databases: this.tenants.size },
      { name: "db-2", weight: 2, maxDatabases: 10, databases: 0 },
    ];
  }

  async moveDatabase(name: string, { to }: MoveDatabaseOptions): Promise<Tenant> {
    const { status } = this.#tenant(name);
    const from = status.databaseServer ?? "main";
    if (from === to) throw new UserError("Conflict", `the database of ${name} is on ${to} already`);
    const id = `database-move-${++this.#moves}`;
    status.databaseMove = { id, to, requestedAt: CREATED };
    const answer = structuredClone(this.#tenant(name));
    delete status.databaseMove;
    const outcome = to === "db-away" ? ("Failed" as const) : ("Succeeded" as const);
    const message =
      outcome === "Failed" ? "PostgreSQL at db-away:5432 does not answer" : "504 rows of 5 tables in 0.8 s";
    status.lastDatabaseMove = { id, from, to, outcome, message, finishedAt: CREATED, seconds: 0.8 };
    if (outcome === "Failed") return answer;
    status.databaseServer = to;
    status.formerDatabases = [{ server: from, keptUntil: "2026-12-23T10:00:00.000Z" }];
    return answer;
  }

  async renameTenant(name: string, { to }: { to: string }): Promise<Tenant> {
    const tenant = this.#tenant(name);
    if (this.tenants.has(to)) throw new UserError("AlreadyExists", `there is a tenant named ${to} already`);
    const asked = structuredClone(tenant);
    asked.status.rename = { id: "rename-1", to, requestedAt: CREATED };
    // Of a name of this kind the controller says in an event that it is not given.
    if (to.startsWith("refused")) return asked;
    this.tenants.delete(name);
    tenant.metadata.name = to;
    tenant.status.formerNames = [{ name, until: CREATED }];
    this.tenants.set(to, tenant);
    return asked;
  }

  async cancelDatabaseMove(name: string): Promise<Tenant> {
    const tenant = this.#tenant(name);
    delete tenant.status.databaseMove;
    return structuredClone(tenant);
  }

  async quarantineTenant(name: string, { lift }: { lift: boolean }): Promise<Tenant> {
    const tenant = this.#tenant(name);
    if (lift) delete tenant.status.quarantine;
    else tenant.status.quarantine ??= { since: CREATED, message: "an operator asked for it" };
    return tenant;
  }

  async tenantUsage(name: string): Promise<TenantUsage> {
    await this.getTenant(name);
    const holdings = { responseBytes: 2_000_000, databaseRows: 1_234, imageSeconds: 0.5, cacheEntries: 321 };
    const database = { bytes: 9_000_000, connections: 2, rowsWritten: 56, tempBytes: 0, at: CREATED };
    return { cpuShare: 0.125, cpuBudget: 0.25, holdings, database };
  }

  async usageHistory({ tenant, month }: { tenant?: string; month?: string }): Promise<UsageMonth[]> {
    this.#mayFail();
    if (tenant !== undefined) await this.getTenant(tenant);
    return this.usage.filter(
      (row) => (tenant === undefined || row.tenant === tenant) && (month === undefined || row.month === month),
    );
  }

  async history({ range, shard }: HistoryQuery): Promise<History> {
    if (shard !== undefined) this.#overview(shard);
    return historyOf(this.samples, range, Date.now(), namedFor(shard));
  }

  async listPlans(): Promise<NamedPlan[]> {
    return this.plans;
  }

  async quotasOf(name: string): Promise<TenantQuotas> {
    const { plan } = this.#tenant(name).spec;
    const quotas = [
      { quota: "users", hard: 50, soft: 40, used: 45, state: "Soft" as const },
      { quota: "uploadBytes", hard: 10_485_760 },
    ];
    return { ...(plan === undefined ? {} : { plan }), quotas, at: CREATED };
  }

  async adminAccessOf(name: string): Promise<AdminAccessView> {
    const { spec } = this.#tenant(name);
    return adminAccessView(spec.adminAccess, this.adminEntrance, `https://${spec.serverName}`);
  }

  async changeAdminAccess(name: string, access: AdminAccess | undefined): Promise<AdminAccessView> {
    this.#mayFail();
    const { spec } = this.#tenant(name);
    if (access && !this.adminEntrance)
      throw new UserError("Conflict", "the cluster has no entrance for administrators");
    if (access) spec.adminAccess = access;
    else delete spec.adminAccess;
    return this.adminAccessOf(name);
  }

  async openAdminSession(name: string, user: string): Promise<AdminSession> {
    const { open, address = "", ui } = await this.adminAccessOf(name);
    if (!open) throw new UserError("Conflict", `tenant ${name} is closed to its administrators: open it first`);
    const { userId, woken } = await this.changeUser(name, user, { kind: "admin", admin: true });
    const expiresAt = "2026-11-27T13:00:00.000Z";
    return { userId, token: ADMIN_TOKEN, expiresAt, woken, address, ...(ui === undefined ? {} : { ui }) };
  }

  async sleepTenant(name: string): Promise<Tenant> {
    const tenant = this.#tenant(name);
    const [reason] = this.keepsAwake;
    if (reason !== undefined) throw new UserError("Conflict", `${name} cannot sleep now: ${reason}`);
    Object.assign(tenant.status, {
      phase: "Asleep",
      sleep: { id: "sleep-1", step: "Asleep", reason: "Requested", requestedAt: CREATED, since: CREATED },
    });
    for (const key of ["shard", "address"] as const) delete tenant.status[key];
    return tenant;
  }

  async suspendTenant(name: string, { lift }: { lift: boolean }): Promise<Tenant> {
    const tenant = this.#tenant(name);
    if (lift === (tenant.spec.suspended !== true)) return structuredClone(tenant);
    tenant.metadata.generation += 1;
    if (lift) delete tenant.spec.suspended;
    else tenant.spec.suspended = true;
    const answer = structuredClone(tenant);
    if (lift) this.run(tenant, "1.163.2-0");
    else {
      Object.assign(tenant.status, { phase: "Suspended", observedGeneration: tenant.metadata.generation });
      for (const key of ["shard", "address"] as const) delete tenant.status[key];
    }
    return answer;
  }

  async wakeTenant(name: string): Promise<Tenant> {
    const tenant = this.#tenant(name);
    delete tenant.status.sleep;
    this.run(tenant, "1.163.2-0");
    return tenant;
  }

  async wakeTenants(wishes: Iterable<{ tenant: string; reason: WakeReason }>): Promise<void> {
    this.wakes.push(...wishes);
  }

  async restOf(name: string): Promise<TenantRest> {
    const { sleep } = this.#tenant(name).status;
    return sleep ? { keepsAwake: [], nextWake: sleep.nextWake } : { keepsAwake: this.keepsAwake, unusedSeconds: 12 };
  }

  async tenantDns(name: string): Promise<TenantDns> {
    const tenant = await this.getTenant(name);
    return dnsOf(tenant.spec.serverName, this.urlOf(tenant), { addresses: ["203.0.113.5"] });
  }

  async checkTenant(name: string): Promise<CheckReport> {
    const tenant = await this.getTenant(name);
    const findings = this.findings.shift() ?? [];
    const { serverName } = tenant.spec;
    return {
      tenant: name,
      serverName,
      url: this.urlOf(tenant),
      checkedAt: CREATED,
      result: worstOf(findings),
      findings,
    };
  }

  async registerUser(name: string, request: RegisterUserRequest): Promise<{ userId: string }> {
    const tenant = this.#tenant(name);
    if (tenant.status.phase !== "Running")
      throw new UserError("Unavailable", `tenant ${name} is ${tenant.status.phase}`);
    if (this.refusesUsers) throw new UserError("InvalidInput", "the authentication service has the accounts");
    this.users.push({ tenant: name, request });
    return { userId: `@${request.username}:${tenant.spec.serverName}` };
  }

  async listUsers(name: string, { search = "", offset, limit }: UserQuery): Promise<UserPage> {
    this.#tenant(name);
    const found = this.accounts.filter(({ userId }) => userId.includes(search));
    return { items: found.slice(offset, offset + limit), total: found.length };
  }

  async changeUser(name: string, user: string, change: UserChange): Promise<ChangedUser> {
    const tenant = this.#tenant(name);
    const userId = user.startsWith("@") ? user : `@${user}:${tenant.spec.serverName}`;
    const account = this.accounts.find((one) => one.userId === userId);
    if (!account) throw new UserError("NotFound", `there is no user ${userId}`);
    const woken = tenant.status.phase === "Asleep";
    if (change.kind === "admin") account.admin = change.admin;
    if (change.kind === "deactivate") account.deactivated = true;
    this.userChanges.push({ userId, change });
    return { userId, woken };
  }

  async pingAppService(name: string, id: string): Promise<AppServicePing & { woken: boolean }> {
    const woken = this.#tenant(name).status.phase === "Asleep";
    if (id === "unknown") throw new UserError("NotFound", `${name} runs with no application service ${id}`);
    return { ...(id === "away" ? { problem: "it did not answer in time" } : { milliseconds: 12 }), woken };
  }

  async tenantMetrics(name: string): Promise<string> {
    return `synapse_shards_tenant_phase{tenant="${name}",phase="${this.#tenant(name).status.phase}"} 1\n`;
  }

  async checkConfig(name: string, config: string): Promise<ConfigVerdict> {
    this.#tenant(name);
    const [, option] = /^(listeners):/m.exec(config) ?? [];
    if (option === undefined) return { verdict: "Accepted", warnings: this.configWarnings };
    return {
      verdict: "Refused",
      reason: "OptionNotAllowed",
      message: `${option} is not a tenant's to set`,
      warnings: [],
    };
  }

  tenantLog(_name: string, options: LogOptions): AsyncIterable<string> {
    return this.#lines(options);
  }

  shardLog(_name: string, options: LogOptions): AsyncIterable<string> {
    return this.#lines(options);
  }

  async listShards(): Promise<ShardOverview[]> {
    return [...this.shards.keys()].map((name) => this.#overview(name));
  }

  async getShard(name: string): Promise<ShardOverview> {
    return this.#overview(name);
  }

  async drainShard(name: string): Promise<Shard> {
    const { shard } = this.#overview(name);
    shard.spec.drain = "Requested";
    return shard;
  }

  async listProblems(): Promise<Problem[]> {
    this.#mayFail();
    const ours = this.problems.map((message): Problem => ({
      severity: "Warning",
      reason: "Test",
      message,
      action: "",
    }));
    const [tenants, shards] = [[...this.tenants.values()], [...this.shards.values()]];
    return [...problemsOf({ tenants, shards, gateways: 1, plans: {}, platform: [] }), ...ours];
  }

  async status(): Promise<ClusterStatus> {
    this.#mayFail();
    const tenants = [...this.tenants.entries()];
    const byPhase: Record<string, number> = {};
    for (const [, { status }] of tenants) byPhase[status.phase] = (byPhase[status.phase] ?? 0) + 1;
    return {
      version: "0.1.0",
      startedAt: new Date(Date.now() - 3_723_000).toISOString(),
      policy: DEFAULT_POLICY,
      release: "1.163.2",
      tenants: { total: tenants.length, byPhase },
      imageTags: [
        {
          version: "1.163.2",
          shards: this.shards.size,
          tenants: tenants.length,
          capacity: this.shards.size * CAPACITY,
          saturated: false,
        },
      ],
      movesInProgress: tenants.flatMap(([tenant, { status }]) => (status.move ? [{ tenant, move: status.move }] : [])),
      recentMoves: tenants.flatMap(([tenant, { status }]) =>
        status.lastMove ? [{ tenant, result: status.lastMove }] : [],
      ),
      gateways: [{ id: "gateway-1", routesVersion: 7, connectedAt: CREATED }],
      problems: this.problems,
    };
  }

  async *events(options: {
    after?: number;
    object?: string;
    follow?: boolean;
    signal?: AbortSignal;
  }): AsyncGenerator<ClusterEvent> {
    const { after = 0, object } = options;
    const wanted = (event: ClusterEvent) => event.id > after && (object === undefined || event.object === object);
    yield* this.#followed(this.log, 0, options, wanted);
  }

  urlOf(tenant: Tenant): string {
    return ownUrlOf(tenant) ?? `http://${tenant.spec.serverName}:8008`;
  }

  #lines(options: LogOptions): AsyncGenerator<string> {
    const begin = options.tail === undefined ? 0 : Math.max(0, this.logLines.length - options.tail);
    return this.#followed(this.logLines, begin, options, () => true);
  }

  async *#followed<T>(
    items: T[],
    begin: number,
    { follow = false, signal }: { follow?: boolean; signal?: AbortSignal },
    wanted: (item: T) => boolean,
  ): AsyncGenerator<T> {
    this.openStreams += 1;
    try {
      for (let index = begin; ; index += 1) {
        if (follow) await this.#untilLonger(items, index, signal);
        const item = items[index];
        if (item === undefined || signal?.aborted) return;
        if (wanted(item)) yield item;
      }
    } finally {
      this.openStreams -= 1;
    }
  }

  async #untilLonger(items: unknown[], index: number, signal: AbortSignal | undefined): Promise<void> {
    if (items.length > index || signal?.aborted) return;
    await this.#nextChange(signal);
    await this.#untilLonger(items, index, signal);
  }

  #nextChange(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      this.#wakers.add(resolve);
      signal?.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  wake(): void {
    for (const waker of this.#wakers) waker();
    this.#wakers.clear();
  }

  #deleted(name: string): DeletedTenant {
    this.#mayFail();
    const record = this.deleted.get(name);
    if (!record) throw new UserError("NotFound", `nothing is kept of a deleted tenant ${name}`);
    return record;
  }

  #tenant(name: string): Tenant {
    this.#mayFail();
    const tenant = this.tenants.get(name);
    if (!tenant) throw new UserError("NotFound", `there is no tenant ${name}`);
    return tenant;
  }

  #overview(name: string): ShardOverview {
    this.#mayFail();
    const shard = this.shards.get(name);
    if (!shard) throw new UserError("NotFound", `there is no shard ${name}`);
    const tenants = [...this.tenants.values()].filter(({ status }) => status.shard === name);
    return { shard, tenants: tenants.map(({ metadata }) => metadata.name).toSorted(), capacity: CAPACITY };
  }

  #mayFail(): void {
    const { failure } = this;
    this.failure = undefined;
    if (failure) throw failure;
  }
}
