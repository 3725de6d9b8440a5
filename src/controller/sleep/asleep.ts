import { storageOf } from "../../model/storage-name.ts";
import { leaveCopy } from "../start/database-move.ts";
import { StartFailure } from "../../model/errors.ts";
import { timeText } from "../../model/clock.ts";
import { wantAwake } from "../../model/wake.ts";
import {
  forgetRefusedRelease,
  reasonOfRunning,
  wantedRelease,
  type Tenant,
  type TenantStatus,
} from "../../model/tenant.ts";
import { ShardUnreachable, type ShardControl } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { judged, Postponement } from "../blame.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { admit } from "../start/admission.ts";
import {
  bringsDatabase,
  configsOf,
  isRefused,
  withConfig,
  type StartConfig,
  type TenantConfigs,
} from "../start/configs.ts";
import { schemaRefusal } from "../start/schema-refusal.ts";
import { assignmentOf, nextEpoch } from "../start/start.ts";

/** While no shard is there to ask, or what is the platform's is away. */
const AGAIN_MS = 30_000;
/** Whom the fence names while a database is brought to another release for nobody. */
const PREPARER = "preparer";

/** Does for tenants that sleep what can be done without waking them. */
export class AsleepTenants {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;

  constructor(context: ControllerContext, shards: ShardReconciler) {
    this.#context = context;
    this.#shards = shards;
  }

  /** @returns milliseconds until it is to be looked at again */
  async run(tenant: Tenant): Promise<number | void> {
    if (tenant.spec.dedicated) return this.#leaveForDedicated(tenant);
    const configs = await configsOf(this.#context, tenant);
    const current = await this.#settleRefusals(tenant, configs);
    if (current?.status.phase !== "Asleep") return undefined;
    try {
      const { asked } = configs;
      if (asked && !isRefused(current, asked) && !(await this.#checkConfig(current, asked))) return AGAIN_MS;
      return await this.#upgrade(current, configs);
    } catch (error) {
      if (!(error instanceof Postponement || error instanceof ShardUnreachable)) throw error;
      this.#context.log.info({ tenant: tenant.metadata.name, why: error.message }, "a sleeping tenant waits");
      return AGAIN_MS;
    }
  }

  /** A dedicated Synapse takes it as it takes one that never ran: nobody has the database. */
  async #leaveForDedicated({ metadata }: Tenant): Promise<void> {
    await modify(this.#context.store, "Tenant", metadata.name, ({ spec, status }) => {
      if (!spec.dedicated || status.phase !== "Asleep") return false;
      delete status.sleep;
      Object.assign(status, { phase: "Pending", reason: "", message: "" });
      return true;
    });
  }

  /** Refusals of what is no longer asked for are nothing to speak of any more. @returns the tenant as it is now */
  async #settleRefusals(tenant: Tenant, { asked }: TenantConfigs): Promise<Tenant | undefined> {
    const { status } = tenant;
    const isTakenBack = asked !== undefined && status.refusedConfig !== undefined && asked.hash === status.configHash;
    const isOther = status.refusedRelease !== undefined && status.refusedRelease.release !== wantedRelease(tenant);
    if (!isTakenBack && !isOther) return tenant;
    return this.#write(tenant, (now) => {
      if (isTakenBack) delete now.refusedConfig;
      if (isOther) forgetRefusedRelease(now);
    });
  }

  /**
   * What is wrong with a changed configuration is said now; it takes effect when the tenant is woken.
   * @returns false where no shard is there to ask
   */
  async #checkConfig(tenant: Tenant, asked: StartConfig): Promise<boolean> {
    const { generation, name } = tenant.metadata;
    const { status } = tenant;
    const isKnown = asked.hash === status.configHash || asked.hash === status.sleep?.admittedConfig;
    if (isKnown && status.observedGeneration === generation) return true;
    const admitted = isKnown || (await this.#admits(tenant, asked));
    if (admitted === false) return false;
    await this.#write(tenant, (now, sleep) => {
      now.observedGeneration = generation;
      if (admitted === true) sleep.admittedConfig = asked.hash;
      else now.refusedConfig = { hash: asked.hash, reason: admitted.reason, message: admitted.message };
    });
    if (admitted !== true)
      await this.#say(name, "Warning", admitted.reason, `${name} keeps its configuration: ${admitted.message}`);
    return true;
  }

  /** @returns false where no shard is there to ask @throws Postponement, ShardUnreachable */
  async #admits(tenant: Tenant, asked: StartConfig): Promise<boolean | StartFailure> {
    const client = this.#anyShard(tenant);
    if (!client) return false;
    const assignment = assignmentOf(this.#context, tenant, asked);
    try {
      await admit(this.#context, client, { ...asked, tenant: withConfig(tenant, asked), assignment });
      return true;
    } catch (error) {
      const verdict = judged(error, bringsDatabase(asked));
      if (verdict instanceof StartFailure) return verdict;
      throw verdict;
    }
  }

  /** A shard that answers, of the release that it is to run, or else of the one that it has. */
  #anyShard(tenant: Tenant): ShardControl | undefined {
    const { reader } = this.#context;
    for (const release of [wantedRelease(tenant), tenant.status.schemaRelease]) {
      for (const { metadata, spec } of reader.values("Shard")) {
        const client = spec.release === release ? this.#shards.observation(metadata.name)?.client : undefined;
        if (client) return client;
      }
    }
    return undefined;
  }

  /** Brings the database to the release it is to run, by a preparer alone. @throws Postponement */
  async #upgrade(tenant: Tenant, { asked, effective }: TenantConfigs): Promise<void> {
    const { status, metadata } = tenant;
    const wanted = wantedRelease(tenant);
    const config = effective ?? asked;
    const isDone = wanted === "" || status.schemaRelease === wanted || status.refusedRelease?.release === wanted;
    if (isDone || !config || status.wake) return;
    try {
      await this.#prepare(tenant, wanted, config);
      await this.#say(
        metadata.name,
        "Normal",
        "PreparedAsleep",
        `${metadata.name} runs Synapse ${wanted} when it is woken`,
      );
    } catch (error) {
      const verdict = judged(error, bringsDatabase(config));
      // On Kubernetes preparers run beside a shard of the release: the first tenant of it has that shard made.
      if (verdict instanceof Postponement && verdict.reason === "Unavailable") return this.#wakeForUpgrade(tenant);
      if (!(verdict instanceof StartFailure)) throw verdict;
      const { reason, message } = verdict;
      await this.#write(tenant, (now) => (now.refusedRelease = { release: wanted, reason, message }));
      await this.#say(metadata.name, "Warning", reason, `${metadata.name} stays on its release: ${message}`);
    }
  }

  async #prepare(tenant: Tenant, release: string, config: StartConfig): Promise<void> {
    const { databases, launcher, clock } = this.#context;
    const { name } = tenant.metadata;
    const facts = await launcher.prepareRelease(release, () => {});
    if (facts) databases.learn(facts);
    const configured = withConfig(tenant, config);
    const stored = await databases.describe(configured, config.secrets);
    const refusal = schemaRefusal(stored, release, databases.facts(release));
    if (refusal !== undefined) throw new StartFailure("SchemaTooNew", refusal);
    await leaveCopy(this.#context, storageOf(tenant));
    const migration = await databases.migration(release);
    try {
      const claimed = await nextEpoch(this.#context, name, { above: stored?.epoch });
      await migration.run(name, PREPARER, assignmentOf(this.#context, claimed, config));
    } finally {
      await migration.close();
    }
    // Nobody has it again.
    const { status } = await nextEpoch(this.#context, name);
    await databases.release({ ...configured, status }, config.secrets, PREPARER);
    await this.#write(tenant, (now, sleep) => {
      now.schemaRelease = release;
      sleep.preparedAt = timeText(clock.now());
    });
  }

  async #wakeForUpgrade({ metadata }: Tenant): Promise<void> {
    const { store, clock } = this.#context;
    await modify(store, "Tenant", metadata.name, ({ status }) => wantAwake(status, "due", clock.now()));
  }

  #write(
    { metadata, status: { sleep } }: Tenant,
    change: (status: TenantStatus, sleep: NonNullable<TenantStatus["sleep"]>) => void,
  ): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", metadata.name, ({ status }) => {
      // Woken meanwhile, it is another's; what was done to its database is known by its epoch.
      if (!status.sleep || status.sleep.id !== sleep?.id) return false;
      change(status, status.sleep);
      if (status.phase === "Asleep") Object.assign(status, reasonOfRunning(status));
      return true;
    });
  }

  #say(name: string, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type, reason, object: `Tenant/${name}`, message });
  }
}
