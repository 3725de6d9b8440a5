import { isReleaseThere } from "./releases.ts";
import { FOLLOWS_FLEET } from "../../model/fleet.ts";
import { changedLabels, labelsProblem, type Labels } from "../../model/labels.ts";
import type { Isolation, Placement } from "../../model/placement.ts";
import { randomUUID } from "node:crypto";
import { timeText } from "../../model/clock.ts";
import { UserError } from "../../model/errors.ts";
import { authenticationUrlProblem } from "../../model/authentication-service.ts";
import { defined } from "../../model/defined.ts";
import { readConfig } from "../../model/config-reading.ts";
import { serverNameProblem, tenantNameProblem } from "../../model/names.ts";
import {
  forgetRefusedRelease,
  INSTALLING,
  isSuspended,
  newTenantStatus,
  reasonOfRunning,
  type Tenant,
  type TenantSpec,
  wantedRelease,
} from "../../model/tenant.ts";
import type { ClusterEvent } from "../../model/event.ts";
import type { Move } from "../../model/move.ts";
import type { Shard } from "../../model/shard.ts";
import type { ServerLoad } from "../../model/database-servers.ts";
import { checkPlan, type Quotas } from "../../model/quota.ts";
import { budgetOfTenant, quotaStandings } from "../usage/quota-watch.ts";
import type { TenantUsage } from "../../model/tenant-usage.ts";
import type { ConfigVerdict } from "../../model/config-verdict.ts";
import type { CheckReport } from "../../model/tenant-check.ts";
import type { TenantDns } from "../../model/tenant-dns.ts";
import type { AdminAccess, AdminAccessView, AdminSession } from "../../model/admin-access.ts";
import type { History } from "../../model/history.ts";
import type { AppServicePing } from "../../model/app-service.ts";
import type { UserChange, UserPage, UserQuery } from "../../model/user.ts";
import type { UsageMonth } from "../../model/usage-month.ts";
import type { WakeReason } from "../../model/sleep.ts";
import { occupancyOf } from "../../model/occupancy.ts";
import type { Snapshot } from "../../planner/snapshot.ts";
import { canDrain, chooseTarget } from "../../planner/requests.ts";
import { modify } from "../../ports/store.ts";
import type { Claimant } from "../claims/claims.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { DeletedTenant, PurgeProof } from "../../model/deleted-tenant.ts";
import { storageField } from "../../model/storage-name.ts";
import { KeptTenants, refuseUnknownServers } from "../tenants/kept-tenants.ts";
import type { TenantNames } from "../tenants/reserved-names.ts";
import { formerly, storageFor } from "../tenants/storage-names.ts";
import { RenameService } from "./renames.ts";
import { followEvents } from "./event-stream.ts";
import { snapshotOf } from "../planning/planned-cluster.ts";
import { createShard } from "../planning/planning.ts";
import { routeOf } from "../routes/routes.ts";
import { asItRuns, configsOf } from "../start/configs.ts";
import { checkConfig } from "./config-check.ts";
import { problemsOf, type Problem } from "./problems.ts";
import { isLineOf, mentions } from "./tenant-lines.ts";
import { registerUser } from "./register-user.ts";
import { AdminAccessService, type AdminAccessSettings } from "./admin-access.ts";
import { isMoveDue } from "../../model/database-move.ts";
import { DatabaseMoveService } from "./database-moves.ts";
import { filledIn } from "./from-template.ts";
import { Onboarding, type OnboardingSettings } from "./onboarding.ts";
import { followTenants } from "./tenant-changes.ts";
import { TenantMetrics } from "./tenant-metrics.ts";
import { TenantUsers } from "./tenant-users.ts";
import { SleepService } from "./sleep-service.ts";
import {
  DEFAULT_PIN_SECONDS,
  type ChangedUser,
  type ClusterService,
  type ClusterStatus,
  type CreateTenantRequest,
  type HistoryQuery,
  type LogOptions,
  type MoveDatabaseOptions,
  type MoveTenantOptions,
  type NamedPlan,
  type RegisterUserRequest,
  type ShardOverview,
  type TenantChange,
  type TenantQuotas,
  type TenantRest,
  type UpdateTenantRequest,
} from "./cluster-service.ts";

export interface ServiceSettings extends OnboardingSettings, AdminAccessSettings {
  version: string;
  /** The release of tenants that name none. */
  release: string;
  baseDomain: string;
  /** Whether gateways lead logins to authentication services; where they do not, something before them does. */
  leadsToAuthentication?: boolean;
  /** Whether a tenant can have a shard for itself by its spec; elsewhere its release makes it dedicated. */
  dedicates?: boolean;
  /** What is wrong with the platform now, one sentence each. */
  platformProblems?(): string[];
  /** The long work that is being done for a tenant, or is to be, in words. */
  workFor?(tenant: string): string | undefined;
  /** Where the cluster's configuration names a tenant. */
  configNames?(tenant: string): string[];
}

/** The controller's offer to people: checks what they ask for and writes it down; the reconcilers do the rest. */
export class StoreClusterService implements ClusterService {
  readonly #context: ControllerContext;
  readonly #settings: ServiceSettings;
  readonly #startedAt: string;
  readonly #sleep: SleepService;
  readonly #onboarding: Onboarding;
  readonly #users: TenantUsers;
  readonly #metrics: TenantMetrics;
  readonly #adminAccess: AdminAccessService;
  readonly #databases: DatabaseMoveService;
  readonly #renames: RenameService;
  readonly #kept: KeptTenants | undefined;

  constructor(context: ControllerContext, settings: ServiceSettings) {
    this.#sleep = new SleepService(context);
    this.#users = new TenantUsers(context, this.#sleep);
    this.#metrics = new TenantMetrics(context);
    this.#startedAt = timeText(context.clock.now());
    this.#context = context;
    this.#kept = context.deletions && new KeptTenants(context, context.deletions);
    this.#settings = settings;
    this.#databases = new DatabaseMoveService(context, (tenant) => settings.workFor?.(tenant));
    this.#renames = new RenameService(context, {
      get: (name) => this.getTenant(name),
      busy: (name) => settings.workFor?.(name),
      configNames: (name) => settings.configNames?.(name) ?? [],
    });
    this.#onboarding = new Onboarding(context, settings);
    this.#adminAccess = new AdminAccessService(context, settings, this.#users);
  }

  async createTenant(asked: CreateTenantRequest, made?: TenantNames): Promise<Tenant> {
    const { store, clock } = this.#context;
    const { filled, words } = await filledIn(asked, (template) => this.getTenant(template));
    const request = this.#onboarding.spelledOut(filled);
    const { name } = request;
    const serverName = request.serverName ?? `${name}.${this.#settings.baseDomain}`;
    const problem = tenantNameProblem(name) ?? serverNameProblem(serverName) ?? configProblem(request.config ?? "");
    if (problem !== undefined) throw new UserError("InvalidInput", problem);
    if (request.release === FOLLOWS_FLEET) await this.#refuseWithoutFleet();
    if (request.authenticationService !== undefined) this.#refuseAuthentication(request.authenticationService);
    this.#refuseIsolation(request.isolation);
    const spec: TenantSpec = {
      serverName,
      release: request.release === FOLLOWS_FLEET ? "" : (request.release ?? this.#settings.release),
      config: request.config ?? "",
      reclaimPolicy: "Retain",
      ...(request.hibernation ? { hibernation: request.hibernation } : {}),
      ...(isEmpty(request.placement) ? {} : { placement: request.placement }),
      ...(request.isolation === "dedicated" ? { isolation: request.isolation } : {}),
      ...(Object.keys(request.labels ?? {}).length === 0 ? {} : { labels: request.labels }),
      ...(request.plan === undefined ? {} : { plan: request.plan }),
      ...(isEmpty(request.quotas) ? {} : { quotas: request.quotas }),
      ...defined({ authenticationService: request.authenticationService }),
    };
    if (request.plan !== undefined) checkPlan(this.#context.plans, request.plan);
    if (await store.get("Tenant", name))
      throw new UserError("AlreadyExists", `there is a tenant named ${name} already`);
    const metadata = { name, creationTimestamp: timeText(clock.now()), resourceVersion: "", generation: 0 };
    const kept = made?.storage ?? (await storageFor(this.#context, name, serverName));
    this.#refuseClash({ metadata, spec, status: { ...newTenantStatus(), ...storageField(kept, name) } });
    // Empty: the fleet's, which is there or is to come.
    const isInstalled = spec.release === "" || (await isReleaseThere(this.#context, spec.release));
    await this.#refuseForeignKeptData({ name, storage: kept }, spec);
    // A shard that was lost may still run one that had this name: no start of this one is to be taken for it.
    const epoch = formerly(this.#context.reader, name)?.status.epoch ?? 0;
    const status = { ...newTenantStatus(), epoch, ...(isInstalled ? {} : installing(spec.release)) };
    const create = async (storage: string, ofKept = {}) => {
      if (storage !== kept) throw new UserError("Conflict", `the data of ${name} changed meanwhile; try again`);
      return store.create("Tenant", name, spec, { ...status, ...ofKept, ...storageField(storage, name) });
    };
    const tenant = await (this.#kept ? this.#kept.create(name, serverName, create, made) : create(kept));
    await recordEvent(this.#context, {
      type: "Normal",
      reason: "Created",
      object: `Tenant/${name}`,
      message: `${name} was created for ${serverName}${words}`,
    });
    return tenant;
  }

  async updateTenant(name: string, request: UpdateTenantRequest): Promise<Tenant> {
    const { store } = this.#context;
    const present = await this.getTenant(name);
    this.#refuseDeleted(present);
    const { hibernation, placement, isolation, labels, plan, quotas, authenticationService } = request;
    this.#refuseIsolation(isolation);
    if (typeof authenticationService === "string") this.#refuseAuthentication(authenticationService);
    if (typeof plan === "string") checkPlan(this.#context.plans, plan);
    const release = request.release === FOLLOWS_FLEET ? "" : request.release;
    const config = request.revertConfig ? await this.#configInEffect(present) : request.config;
    if (config !== undefined) {
      const problem = configProblem(config);
      if (problem !== undefined) throw new UserError("InvalidInput", problem);
      this.#refuseClash({ ...present, spec: { ...present.spec, config } });
    }
    const isOther = release !== undefined && release !== present.spec.release;
    if (release === "") await this.#refuseWithoutFleet();
    const isNamed = isOther && release !== "";
    const isInstalled = !isNamed || (await isReleaseThere(this.#context, release));
    if (isNamed) await this.#refuseOldSchema(present, release);
    const updated = await modify(store, "Tenant", name, (t) => {
      this.#refuseDeleted(t);
      const { spec, status } = t;
      // It keeps the one it has until the fleet's rollout comes to it.
      if (release === "" && spec.release !== "") status.fleetRelease = spec.release;
      if (release !== undefined) spec.release = release;
      if (hibernation) spec.hibernation = hibernation;
      if (placement) spec.placement = placement;
      if (isolation === "dedicated") spec.isolation = isolation;
      else if (isolation) delete spec.isolation;
      if (labels) spec.labels = withinBounds(changedLabels(spec.labels, labels));
      if (isEmpty(spec.placement)) delete spec.placement;
      if (plan === null) delete spec.plan;
      else if (plan !== undefined) spec.plan = plan;
      if (quotas) spec.quotas = quotas;
      if (isEmpty(spec.quotas)) delete spec.quotas;
      if (request.metrics) spec.metrics = request.metrics;
      if (spec.metrics?.length === 0) delete spec.metrics;
      if (authenticationService === null) delete spec.authenticationService;
      else if (authenticationService !== undefined) spec.authenticationService = authenticationService;
      if (config !== undefined) {
        // Asked for once more, it is tried once more.
        if (status.refusedConfig && spec.config === config) status.observedGeneration = t.metadata.generation - 1;
        delete status.refusedConfig;
        spec.config = config;
      }
      forgetRefusedRelease(status);
      delete status.moveNotBefore;
      delete status.retryAt;
      if (status.phase === "Running") Object.assign(status, reasonOfRunning(status));
      if (!isInstalled && release !== undefined) Object.assign(status, installing(release));
    });
    const { feed, claims } = this.#context;
    if (updated && authenticationService !== undefined) feed.publish(routeOf(updated, claims));
    return updated ?? this.getTenant(name);
  }

  async deleteTenant(name: string, options: { purge: boolean }): Promise<Tenant> {
    if (options.purge) refuseUnknownServers(this.#context.databases, name, (await this.getTenant(name)).status);
    const deleted = await modify(this.#context.store, "Tenant", name, ({ spec, metadata }) => {
      if (options.purge) spec.reclaimPolicy = "Delete";
      metadata.deletionTimestamp ??= timeText(this.#context.clock.now());
    });
    return deleted ?? this.getTenant(name);
  }

  async listDeleted(): Promise<DeletedTenant[]> {
    return (await this.#context.deletions?.records.list()) ?? [];
  }

  async undeleteTenant(name: string): Promise<Tenant> {
    return this.#keptOrRefuse().undelete(name, (tenant) => this.#refuseClash(tenant));
  }

  async purgeTenant(name: string): Promise<PurgeProof> {
    return this.#keptOrRefuse().purge(name);
  }

  async listPurges(limit: number): Promise<PurgeProof[]> {
    return (await this.#context.deletions?.records.proofs(limit)) ?? [];
  }

  async usageHistory(query: { tenant?: string; month?: string }): Promise<UsageMonth[]> {
    const { recorder } = this.#context;
    if (recorder) return recorder.months(query);
    throw new UserError(
      "Conflict",
      "this platform keeps no history of what tenants take: docs/usage.md says where figures of now are",
    );
  }

  async history({ range, shard }: HistoryQuery): Promise<History> {
    const { history } = this.#context;
    if (!history) throw new UserError("Conflict", "this platform keeps no history of how the cluster was");
    const found = await history.read(range, shard);
    // One that is gone is shown for as long as something is known of it.
    if (shard !== undefined && found.series.length === 0) await this.getShard(shard);
    return found;
  }

  async getTenant(name: string): Promise<Tenant> {
    const tenant = await this.#context.store.get("Tenant", name);
    if (tenant) return tenant;
    const renamed = formerly(this.#context.reader, name);
    const hint = renamed ? `; it was renamed to ${renamed.metadata.name}` : "";
    throw new UserError("NotFound", `there is no tenant ${name}${hint}`);
  }

  renameTenant(name: string, { to }: { to: string }): Promise<Tenant> {
    return this.#renames.ask(name, to);
  }

  async listTenants(): Promise<Tenant[]> {
    return this.#context.reader.sorted("Tenant");
  }

  watchTenants({ signal }: { signal?: AbortSignal }): AsyncIterable<TenantChange> {
    return followTenants(this.#context.reader, signal);
  }

  async moveTenant(name: string, options: MoveTenantOptions = {}): Promise<Move> {
    const { store, policy, clock } = this.#context;
    const { to, pinSeconds = DEFAULT_PIN_SECONDS } = options;
    const tenant = await this.getTenant(name);
    const { status } = tenant;
    const refusal = whyNotMovable(tenant);
    if (refusal !== undefined || status.shard === undefined) throw new UserError("Conflict", refusal ?? "");
    const choice = chooseTarget(this.#snapshot(), policy, name, to);
    if ("refused" in choice)
      throw new UserError(choice.refused === "ShardNotFound" ? "NotFound" : "NoPlace", choice.message);
    const target = "create" in choice ? choice.create : choice.shard;
    if ("create" in choice) await createShard(this.#context, target, wantedRelease(tenant), `for the move of ${name}`);
    const now = clock.now();
    const move: Move = {
      id: randomUUID(),
      from: status.shard,
      to: target,
      reason: "Requested",
      step: "Preparing",
      requestedAt: timeText(now),
      ...(pinSeconds > 0 ? { pinnedUntil: timeText(now + pinSeconds * 1000) } : {}),
    };
    const written = await modify(store, "Tenant", name, (t) => {
      if (whyNotMovable(t) !== undefined || t.status.shard !== move.from) return false;
      t.status.move = move;
      t.status.phase = "Moving";
      if (move.pinnedUntil === undefined) delete t.status.pin;
      else t.status.pin = { shard: target, until: move.pinnedUntil };
      return true;
    });
    if (written?.status.move?.id !== move.id)
      throw new UserError("Conflict", `tenant ${name} changed meanwhile; try again`);
    await modify(store, "Shard", target, (shard) => void (shard.status.lastAssignmentChange = move.requestedAt));
    return move;
  }

  listDatabaseServers(): Promise<ServerLoad[]> {
    return this.#databases.servers();
  }

  async moveDatabase(name: string, options: MoveDatabaseOptions): Promise<Tenant> {
    const asked = await this.#databases.ask(await this.getTenant(name), options);
    return asked.status.sleep && isMoveDue(asked.status.databaseMove) ? this.wakeTenant(name) : asked;
  }

  cancelDatabaseMove(name: string): Promise<Tenant> {
    return this.#databases.cancel(name);
  }

  async quarantineTenant(name: string, { lift }: { lift: boolean }): Promise<Tenant> {
    const { store, clock } = this.#context;
    let done = false;
    const tenant = await modify(store, "Tenant", name, ({ status }) => {
      done = lift === (status.quarantine !== undefined);
      if (!done) return false;
      if (lift) {
        delete status.quarantine;
        delete status.stalls;
      } else status.quarantine = { since: timeText(clock.now()), message: "an operator asked for it" };
      return true;
    });
    if (!tenant) throw new UserError("NotFound", `there is no tenant ${name}`);
    if (!done) return tenant;
    await recordEvent(this.#context, {
      type: lift ? "Normal" : "Warning",
      reason: lift ? "QuarantineLifted" : "Quarantined",
      object: `Tenant/${name}`,
      message: lift
        ? `${name} may share a shard again, as requested`
        : `${name} is quarantined as requested: it runs on a shard of its own until this is lifted`,
    });
    return tenant;
  }

  async tenantUsage(name: string): Promise<TenantUsage> {
    await this.getTenant(name);
    const { quotas: _, refused: __, ...usage } = this.#context.usage.get(name);
    return { ...usage, cpuBudget: budgetOfTenant(this.#context, name) };
  }

  async listPlans(): Promise<NamedPlan[]> {
    const { plans, reader } = this.#context;
    const counts = new Map<string, number>();
    for (const { spec } of reader.values("Tenant"))
      if (spec.plan !== undefined) counts.set(spec.plan, (counts.get(spec.plan) ?? 0) + 1);
    return Object.keys(plans)
      .toSorted()
      .map((name) => ({ name, quotas: plans[name] ?? {}, tenants: counts.get(name) ?? 0 }));
  }

  async quotasOf(name: string): Promise<TenantQuotas> {
    const tenant = await this.getTenant(name);
    const { plan } = tenant.spec;
    const at = this.#context.usage.get(name).quotas?.at;
    return {
      ...(plan === undefined ? {} : { plan }),
      quotas: quotaStandings(this.#context, tenant),
      ...(at === undefined ? {} : { at }),
    };
  }

  async adminAccessOf(name: string): Promise<AdminAccessView> {
    return this.#adminAccess.view(await this.getTenant(name));
  }

  changeAdminAccess(name: string, access: AdminAccess | undefined): Promise<AdminAccessView> {
    return this.#adminAccess.change(name, access);
  }

  async openAdminSession(name: string, user: string): Promise<AdminSession> {
    return this.#adminAccess.openSession(await this.getTenant(name), user);
  }

  async suspendTenant(name: string, { lift }: { lift: boolean }): Promise<Tenant> {
    const tenant = await modify(this.#context.store, "Tenant", name, (t) => {
      const { spec, status } = t;
      this.#refuseDeleted(t);
      if (lift === (spec.suspended !== true)) return false;
      if (!lift && (spec.dedicated || status.dedicated || status.transition))
        throw new UserError(
          "Conflict",
          `tenant ${name} is dedicated, and runs outside of shards: stop its own process`,
        );
      if (lift) delete spec.suspended;
      else spec.suspended = true;
      return true;
    });
    return tenant ?? this.getTenant(name);
  }

  async sleepTenant(name: string): Promise<Tenant> {
    return this.#sleep.sleep(await this.getTenant(name));
  }

  async wakeTenant(name: string): Promise<Tenant> {
    if (isSuspended(await this.getTenant(name)))
      throw new UserError("Conflict", `tenant ${name} is suspended, and does not wake until it is resumed`);
    await this.wakeTenants([{ tenant: name, reason: "operator" }]);
    return this.getTenant(name);
  }

  wakeTenants(wishes: Iterable<{ tenant: string; reason: WakeReason }>): Promise<void> {
    return this.#sleep.wake(wishes);
  }

  async restOf(name: string): Promise<TenantRest> {
    return this.#sleep.rest(await this.getTenant(name));
  }

  async tenantDns(name: string): Promise<TenantDns> {
    return this.#onboarding.dns(await this.getTenant(name));
  }

  async checkTenant(name: string): Promise<CheckReport> {
    return this.#onboarding.check(await this.getTenant(name));
  }

  async registerUser(name: string, request: RegisterUserRequest): Promise<{ userId: string }> {
    const tenant = await this.#sleep.awake(await this.getTenant(name));
    const { address, phase, shard } = tenant.status;
    const secrets = (await asItRuns(this.#context, tenant))?.secrets;
    if (phase !== "Running" || address === undefined || !secrets) {
      throw new UserError("Unavailable", `tenant ${name} is ${phase}; users can be registered while it runs`);
    }
    const listener = { address, serverName: tenant.spec.serverName, secret: this.#context.feed.secretOf(shard) };
    return registerUser(listener, secrets.registrationSharedSecret, request);
  }

  async listUsers(name: string, query: UserQuery): Promise<UserPage> {
    return this.#users.list(await this.getTenant(name), query);
  }

  async changeUser(name: string, user: string, change: UserChange): Promise<ChangedUser> {
    return this.#users.change(await this.getTenant(name), user, change);
  }

  async pingAppService(name: string, id: string): Promise<AppServicePing & { woken: boolean }> {
    return this.#users.pingAppService(await this.getTenant(name), id);
  }

  async tenantMetrics(name: string): Promise<string> {
    return this.#metrics.of(await this.getTenant(name));
  }

  async checkConfig(name: string, config: string): Promise<ConfigVerdict> {
    const tenant = await this.getTenant(name);
    const problem = configProblem(config);
    if (problem !== undefined) return { verdict: "Refused", reason: "InvalidConfig", message: problem, warnings: [] };
    const rival = this.#context.claims.conflictWhenAsked({ ...tenant, spec: { ...tenant.spec, config } });
    if (rival) return { verdict: "Refused", reason: rival.reason, message: rival.message, warnings: [] };
    return checkConfig(this.#context, tenant, config);
  }

  async *tenantLog(name: string, options: LogOptions): AsyncIterable<string> {
    const tenant = await this.getTenant(name);
    const shard = tenant.status.shard;
    if (shard === undefined) throw new UserError("Conflict", `tenant ${name} is on no shard, so it has no log`);
    // The shard's log is everybody's: the last lines of this tenant may lie far back.
    const { tail = 100, follow, signal, isOwnOnly = false } = options;
    const mine = isOwnOnly ? isLineOf(tenant) : mentions(tenant.spec.serverName);
    const last: string[] = [];
    for await (const line of this.#context.launcher.log(shard, { signal })) {
      if (!mine(line)) continue;
      last.push(line);
      if (last.length > tail) last.shift();
    }
    yield* last;
    if (!follow) return;
    for await (const line of this.#context.launcher.log(shard, { tail: 0, follow: true, signal }))
      if (mine(line)) yield line;
  }

  async listShards(): Promise<ShardOverview[]> {
    const { reader, policy } = this.#context;
    const { tenantsOf } = occupancyOf(reader.values("Shard"), reader.values("Tenant"), policy);
    return reader.sorted("Shard").map((shard) => ({
      shard,
      tenants: tenantsOf.get(shard.metadata.name) ?? [],
      capacity: policy.maxTenantsPerShard,
    }));
  }

  async getShard(name: string): Promise<ShardOverview> {
    const { reader, policy } = this.#context;
    const shard = reader.get("Shard", name);
    if (!shard) throw new UserError("NotFound", `there is no shard ${name}`);
    const assigned = [...reader.tenantsOf(name)].filter(
      (tenant) => reader.get("Tenant", tenant)?.status.shard === name,
    );
    return { shard, tenants: assigned.toSorted(), capacity: policy.maxTenantsPerShard };
  }

  async drainShard(name: string): Promise<Shard> {
    const { store, policy } = this.#context;
    const { shard } = await this.getShard(name);
    if (shard.spec.drain === "Requested") return shard;
    const answer = canDrain(this.#snapshot(), policy, name);
    if (!answer.fits) throw new UserError("NoPlace", answer.message);
    const drained = await modify(store, "Shard", name, ({ spec }) => void (spec.drain = "Requested"));
    await recordEvent(this.#context, {
      type: "Normal",
      reason: "DrainRequested",
      object: `Shard/${name}`,
      message: `shard ${name} is drained as requested`,
    });
    return drained ?? shard;
  }

  async *shardLog(name: string, options: LogOptions): AsyncIterable<string> {
    await this.getShard(name);
    yield* this.#context.launcher.log(name, {
      tail: options.tail ?? 100,
      follow: options.follow,
      signal: options.signal,
    });
  }

  async status(): Promise<ClusterStatus> {
    const { policy, feed } = this.#context;
    const tenants = this.#context.reader.sorted("Tenant");
    const shards = this.#context.reader.sorted("Shard");
    const byPhase: Record<string, number> = {};
    for (const { status } of tenants) byPhase[status.phase] = (byPhase[status.phase] ?? 0) + 1;
    const { tags } = occupancyOf(shards, tenants, policy);
    const known = new Set(tags.map(({ version }) => version));
    const waiting = new Set(tenants.map(wantedRelease).filter((tag) => tag !== "" && !known.has(tag)));
    const capacity = policy.maxShardsPerSynapseImageTag * policy.maxTenantsPerShard;
    const withoutShards = [...waiting].map((version) => ({
      version,
      shards: 0,
      tenants: 0,
      capacity,
      saturated: false,
    }));
    const recent = tenants.flatMap((t) =>
      t.status.lastMove ? [{ tenant: t.metadata.name, result: t.status.lastMove }] : [],
    );
    return {
      version: this.#settings.version,
      startedAt: this.#startedAt,
      policy,
      release: this.#settings.release,
      tenants: { total: tenants.length, byPhase },
      imageTags: [...tags, ...withoutShards].toSorted((a, b) => (a.version < b.version ? -1 : 1)),
      movesInProgress: tenants.flatMap((t) =>
        t.status.move ? [{ tenant: t.metadata.name, move: t.status.move }] : [],
      ),
      recentMoves: recent.toSorted((a, b) => b.result.finishedAt.localeCompare(a.result.finishedAt)).slice(0, 10),
      gateways: feed.gateways(),
      problems: this.#problems().map(({ message }) => message),
    };
  }

  async listProblems(): Promise<Problem[]> {
    return this.#problems();
  }

  #problems(): Problem[] {
    const { feed, plans } = this.#context;
    const platform = this.#settings.platformProblems?.() ?? [];
    return problemsOf({
      tenants: this.#context.reader.sorted("Tenant"),
      shards: this.#context.reader.sorted("Shard"),
      gateways: feed.gateways().length,
      plans,
      platform,
    });
  }

  events(options: {
    after?: number;
    object?: string;
    follow?: boolean;
    signal?: AbortSignal;
  }): AsyncIterable<ClusterEvent> {
    return followEvents(this.#context.store, options);
  }

  urlOf(tenant: Tenant): string {
    return this.#settings.urlOf(tenant);
  }

  #keptOrRefuse(): KeptTenants {
    if (this.#kept) return this.#kept;
    throw new UserError(
      "Conflict",
      "this platform keeps the data of deleted tenants until somebody removes it: create a tenant of that name and server name to have it back, " +
        "or delete that one with reclaimPolicy Delete to remove it",
    );
  }

  #snapshot(): Snapshot {
    const { reader } = this.#context;
    return snapshotOf(reader.values("Tenant"), reader.values("Shard"), this.#context);
  }

  /** From memory: with very many of them, reading the store would hold up everything else. */
  /** @throws UserError SchemaTooNew, as far as it is known already */
  async #refuseOldSchema(present: Tenant, release: string): Promise<void> {
    const { databases } = this.#context;
    const { name } = present.metadata;
    const facts = databases.facts(release);
    const runs = present.status.provisioned && facts ? await asItRuns(this.#context, present) : undefined;
    const stored = runs && (await databases.describe(runs.tenant, runs.secrets));
    if (!facts || !stored || stored.schemaCompatVersion <= facts.schemaVersion) return;
    throw new UserError(
      "SchemaTooNew",
      `${name} cannot go to Synapse ${release}: that release knows database schemas up to ${facts.schemaVersion}, and this ` +
        `database can only be read from schema ${stored.schemaCompatVersion} on`,
    );
  }

  async #configInEffect(tenant: Tenant): Promise<string> {
    const { name } = tenant.metadata;
    const { asked, effective } = await configsOf(this.#context, tenant);
    if (!effective) throw new UserError("Conflict", `no configuration of tenant ${name} has been in effect yet`);
    if (effective.config !== asked?.config) return effective.config;
    throw new UserError("Conflict", `there is nothing to take back: the configuration of tenant ${name} is in effect`);
  }

  /** It would wait for one. */
  async #refuseWithoutFleet(): Promise<void> {
    if ((await this.#context.store.list("Fleet")).length === 0)
      throw new UserError("Conflict", "there is no fleet to follow yet; `fleet set --release VERSION` makes one");
  }

  #refuseDeleted({ metadata }: Tenant): void {
    if (metadata.deletionTimestamp !== undefined)
      throw new UserError("Conflict", `tenant ${metadata.name} is being deleted`);
  }

  #refuseIsolation(isolation: Isolation | undefined): void {
    if (isolation !== "dedicated" || this.#settings.dedicates) return;
    throw new UserError(
      "Conflict",
      "on Kubernetes a homeserver's Helm release makes it dedicated: synapse.asTenantHook.enabled=false (docs/kubernetes.md)",
    );
  }

  #refuseAuthentication(url: string): void {
    if (!this.#settings.leadsToAuthentication)
      throw new UserError(
        "Conflict",
        "gateways lead no logins to an authentication service here: the Ingress does (docs/ess-helm.md)",
      );
    const problem = authenticationUrlProblem(url);
    if (problem !== undefined) throw new UserError("InvalidInput", problem);
  }

  /** Two tenants of one host or one database would be two owners of one thing. */
  #refuseClash(tenant: Claimant): void {
    const rival = this.#context.claims.conflictWhenAsked(tenant);
    if (rival) throw new UserError("AlreadyExists", rival.message);
  }

  /** Data that was kept from a deleted tenant is continued only under the same server name: its user ids end in it. */
  async #refuseForeignKeptData({ name, storage }: { name: string; storage: string }, spec: TenantSpec): Promise<void> {
    const kept = await this.#context.store.readSecret(storage);
    if (kept?.serverName !== undefined && kept.serverName !== spec.serverName) {
      throw new UserError(
        "AlreadyExists",
        `database and media of a deleted tenant ${name} with server name ${kept.serverName} are kept; create it with that server name, or choose another name`,
      );
    }
  }
}

/** Its release is not there yet, and is on its way. */
function installing(release: string): { reason: string; message: string } {
  return { reason: INSTALLING, message: `Synapse ${release} is being installed` };
}

/** What makes a text no configuration at all; all else is the shard's to judge. */
function configProblem(config: string): string | undefined {
  try {
    readConfig(config);
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

/** Why a user cannot move it now, or undefined. */
function whyNotMovable({ metadata, spec, status }: Tenant): string | undefined {
  const { name } = metadata;
  const { move, transition, phase, shard, rename } = status;
  if (metadata.deletionTimestamp !== undefined) return `tenant ${name} is being deleted`;
  if (rename) return `tenant ${name} is being renamed to ${rename.to}`;
  if (move) return `tenant ${name} is being moved already, from ${move.from} to ${move.to}`;
  if (spec.dedicated || transition)
    return `tenant ${name} is dedicated${transition ? ", or is on its way" : ""}; moves are between shards`;
  if (phase === "Running" && shard !== undefined) return undefined;
  return `tenant ${name} is ${phase}; only a running tenant can be moved`;
}

/** Each of them has been checked; together they may be too many. */
function withinBounds(labels: Labels): Labels {
  const problem = labelsProblem(labels);
  if (problem !== undefined) throw new UserError("InvalidInput", problem);
  return labels;
}

function isEmpty(of: Placement | Quotas | undefined): boolean {
  return of === undefined || Object.values(of).every((value) => value === undefined);
}
