import { randomUUID } from "node:crypto";
import { UserError } from "../../model/errors.ts";
import { serverNameProblem, tenantNameProblem } from "../../model/names.ts";
import type { ReleaseFacts } from "../../ports/launcher.ts";
import {
  forgetRefusedRelease,
  wantedRelease,
  type Tenant,
  type TenantSpec,
  type TenantStatus,
} from "../../model/tenant.ts";
import type { ClusterEvent } from "../../model/event.ts";
import type { Move } from "../../model/move.ts";
import type { Shard } from "../../model/shard.ts";
import { occupancyOf } from "../../model/occupancy.ts";
import type { Snapshot } from "../../planner/snapshot.ts";
import { canDrain, chooseTarget } from "../../planner/requests.ts";
import { modify, type Kinds } from "../../ports/store.ts";
import type { Claimant } from "../claims/claims.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { followEvents } from "./event-stream.ts";
import { snapshotOf } from "../planning/planned-cluster.ts";
import { createShard } from "../planning/planning.ts";
import { asItRuns } from "../start/configs.ts";
import { registerUser } from "./register-user.ts";
import type {
  ClusterService,
  ClusterStatus,
  CreateTenantRequest,
  LogOptions,
  RegisterUserRequest,
  ShardOverview,
  UpdateTenantRequest,
} from "./cluster-service.ts";

export interface ServiceSettings {
  version: string;
  /** The release of tenants that name none. */
  release: string;
  baseDomain: string;
  urlOf(tenant: Tenant): string;
}

const NEW_TENANT: TenantStatus = {
  phase: "Pending",
  reason: "",
  message: "",
  epoch: 0,
  observedGeneration: 0,
  provisioned: false,
  failures: 0,
};

/** The controller's offer to people: checks what they ask for and writes it down; the reconcilers do the rest. */
export class StoreClusterService implements ClusterService {
  readonly #context: ControllerContext;
  readonly #settings: ServiceSettings;
  readonly #startedAt = new Date().toISOString();

  constructor(context: ControllerContext, settings: ServiceSettings) {
    this.#context = context;
    this.#settings = settings;
  }

  async createTenant(request: CreateTenantRequest): Promise<Tenant> {
    const { store } = this.#context;
    const { name } = request;
    const serverName = request.serverName ?? `${name}.${this.#settings.baseDomain}`;
    const problem = tenantNameProblem(name) ?? serverNameProblem(serverName);
    if (problem !== undefined) throw new UserError("InvalidInput", problem);
    const spec: TenantSpec = {
      serverName,
      release: request.release ?? this.#settings.release,
      config: request.config ?? "",
      reclaimPolicy: "Retain",
    };
    if (await store.get("Tenant", name))
      throw new UserError("AlreadyExists", `there is a tenant named ${name} already`);
    const metadata = { name, creationTimestamp: new Date().toISOString(), resourceVersion: "", generation: 0 };
    this.#refuseClash({ metadata, spec, status: NEW_TENANT });
    // Empty: the fleet's, which is there or is to come.
    if (spec.release !== "") await this.#release(spec.release);
    await this.#refuseForeignKeptData(name, spec);
    const tenant = await store.create("Tenant", name, spec, { ...NEW_TENANT });
    await recordEvent(this.#context, {
      type: "Normal",
      reason: "Created",
      object: `Tenant/${name}`,
      message: `${name} was created for ${serverName}`,
    });
    return tenant;
  }

  async updateTenant(name: string, request: UpdateTenantRequest): Promise<Tenant> {
    const { store, databases } = this.#context;
    const present = await this.getTenant(name);
    if (present.metadata.deletionTimestamp !== undefined)
      throw new UserError("Conflict", `tenant ${name} is being deleted`);
    const { release, config } = request;
    if (config !== undefined) this.#refuseClash({ ...present, spec: { ...present.spec, config } });
    if (release !== undefined && release !== present.spec.release && present.status.provisioned) {
      const facts = await this.#release(release);
      const secrets = await store.readSecret(name);
      const stored = secrets && (await databases.describe(present, secrets));
      if (facts && stored && stored.schemaCompatVersion > facts.schemaVersion) {
        throw new UserError(
          "SchemaTooNew",
          `${name} cannot go to Synapse ${release}: that release knows database schemas up to ${facts.schemaVersion}, and this ` +
            `database can only be read from schema ${stored.schemaCompatVersion} on`,
        );
      }
    }
    const updated = await modify(store, "Tenant", name, ({ spec, status }) => {
      if (release !== undefined) spec.release = release;
      if (config !== undefined) spec.config = config;
      forgetRefusedRelease(status);
      delete status.moveNotBefore;
      delete status.retryAt;
    });
    return updated ?? this.getTenant(name);
  }

  async deleteTenant(name: string, options: { purge: boolean }): Promise<Tenant> {
    const deleted = await modify(this.#context.store, "Tenant", name, ({ spec, metadata }) => {
      if (options.purge) spec.reclaimPolicy = "Delete";
      metadata.deletionTimestamp ??= new Date().toISOString();
    });
    return deleted ?? this.getTenant(name);
  }

  async getTenant(name: string): Promise<Tenant> {
    const tenant = await this.#context.store.get("Tenant", name);
    if (!tenant) throw new UserError("NotFound", `there is no tenant ${name}`);
    return tenant;
  }

  async listTenants(): Promise<Tenant[]> {
    return this.#sorted("Tenant");
  }

  async moveTenant(name: string, to?: string): Promise<Move> {
    const { store, policy } = this.#context;
    const tenant = await this.getTenant(name);
    const { status } = tenant;
    if (status.move)
      throw new UserError(
        "Conflict",
        `tenant ${name} is being moved already, from ${status.move.from} to ${status.move.to}`,
      );
    if (tenant.spec.dedicated || status.transition)
      throw new UserError(
        "Conflict",
        `tenant ${name} has a Synapse of its own${status.transition ? ", or is on its way" : ""}; moves are between shards`,
      );
    if (status.phase !== "Running" || status.shard === undefined) {
      throw new UserError("Conflict", `tenant ${name} is ${status.phase}; only a running tenant can be moved`);
    }
    const choice = chooseTarget(this.#snapshot(), policy, name, to);
    if ("refused" in choice)
      throw new UserError(choice.refused === "ShardNotFound" ? "NotFound" : "NoPlace", choice.message);
    const target = "create" in choice ? choice.create : choice.shard;
    if ("create" in choice) await createShard(this.#context, target, wantedRelease(tenant), `for the move of ${name}`);
    const move: Move = {
      id: randomUUID(),
      from: status.shard,
      to: target,
      reason: "Requested",
      step: "Preparing",
      requestedAt: new Date().toISOString(),
    };
    const written = await modify(store, "Tenant", name, (t) => {
      if (
        t.status.move ||
        t.status.transition ||
        t.metadata.deletionTimestamp !== undefined ||
        t.status.shard !== move.from
      )
        return false;
      t.status.move = move;
      t.status.phase = "Moving";
      return true;
    });
    if (written?.status.move?.id !== move.id)
      throw new UserError("Conflict", `tenant ${name} changed meanwhile; try again`);
    await modify(store, "Shard", target, (shard) => void (shard.status.lastAssignmentChange = move.requestedAt));
    return move;
  }

  async registerUser(name: string, request: RegisterUserRequest): Promise<{ userId: string }> {
    const tenant = await this.getTenant(name);
    const { address, phase, shard } = tenant.status;
    const secrets = (await asItRuns(this.#context, tenant))?.secrets;
    if (phase !== "Running" || address === undefined || !secrets) {
      throw new UserError("Unavailable", `tenant ${name} is ${phase}; users can be registered while it runs`);
    }
    const listener = { address, serverName: tenant.spec.serverName, secret: this.#context.feed.secretOf(shard) };
    return registerUser(listener, secrets.registrationSharedSecret, request);
  }

  async *tenantLog(name: string, options: LogOptions): AsyncIterable<string> {
    const tenant = await this.getTenant(name);
    const shard = tenant.status.shard;
    if (shard === undefined) throw new UserError("Conflict", `tenant ${name} is on no shard, so it has no log`);
    const { serverName } = tenant.spec;
    const mine = (line: string) => line.includes(JSON.stringify(serverName)) || line.includes(serverName);
    // The shard's log is everybody's: the last lines of this tenant may lie far back.
    const { tail = 100, follow, signal } = options;
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
    return this.#sorted("Shard").map((shard) => ({
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
    const tenants = this.#sorted("Tenant");
    const shards = this.#sorted("Shard");
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
      problems: problemsOf(tenants, shards, feed.gateways().length),
    };
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

  #snapshot(): Snapshot {
    const { reader, claims } = this.#context;
    return snapshotOf(reader.values("Tenant"), reader.values("Shard"), claims);
  }

  /** From memory: with very many of them, reading the store would hold up everything else. */
  #sorted<K extends "Tenant" | "Shard">(kind: K): Kinds[K][] {
    const byName = (a: Kinds[K], b: Kinds[K]) => (a.metadata.name < b.metadata.name ? -1 : 1);
    return [...this.#context.reader.values(kind)].toSorted(byName);
  }

  /**
   * Makes sure that there is such a release before anything is promised; may take a minute to install it.
   * @returns what it says of itself, where that can be known beforehand @throws UserError UnknownRelease
   */
  async #release(version: string): Promise<ReleaseFacts | undefined> {
    const { databases, launcher } = this.#context;
    const known = databases.facts(version);
    if (known) return known;
    const facts = await launcher.prepareRelease(version, () => {});
    if (facts) databases.learn(facts);
    return facts;
  }

  /** Two tenants of one host or one database would be two owners of one thing. */
  #refuseClash(tenant: Claimant): void {
    const rival = this.#context.claims.conflictOf(tenant);
    if (rival) throw new UserError("AlreadyExists", rival.message);
  }

  /** Data that was kept from a deleted tenant is continued only under the same server name: its user ids end in it. */
  async #refuseForeignKeptData(name: string, spec: TenantSpec): Promise<void> {
    const kept = await this.#context.store.readSecret(name);
    if (kept?.serverName !== undefined && kept.serverName !== spec.serverName) {
      throw new UserError(
        "AlreadyExists",
        `database and media of a deleted tenant ${name} with server name ${kept.serverName} are kept; create it with that server name, or choose another name`,
      );
    }
  }
}

function problemsOf(tenants: Tenant[], shards: Shard[], gateways: number): string[] {
  return [
    ...tenants
      .filter((t) => t.status.message !== "")
      .map((t) => `tenant ${t.metadata.name} is ${t.status.phase} (${t.status.reason}): ${t.status.message}`),
    ...shards
      .filter((s) => s.status.phase === "Failed" || s.status.phase === "Lost")
      .map((s) => `shard ${s.metadata.name} is ${s.status.phase} (${s.status.reason}): ${s.status.message}`),
    ...(gateways === 0 ? ["no gateway is connected"] : []),
  ];
}
