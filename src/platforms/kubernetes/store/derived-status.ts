import { setImmediate as nextTurn } from "node:timers/promises";
import { conditionOf, type Finding } from "./conditions.ts";
import type { Condition, SynapseShard, SynapseTenant } from "./resources.ts";
import type { SecretProblem } from "./tenant-secrets.ts";

/** Changes come in bursts, of which each object gets one write. */
const SETTLE_MS = 500;
/** Looked at in one piece; a leader that has just read 100,000 must be able to say meanwhile that it still leads. */
const AT_ONCE = 500;

export interface DerivedStatusOptions<T> {
  /** Of the objects of these names, those whose status does not say what it should, as they should be. */
  outdated: (touched: ReadonlySet<string>) => Iterable<T>;
  write: (object: T) => Promise<unknown>;
}

/** Keeps the part of statuses that follows from other objects, a moment behind them. */
export class DerivedStatus<T> {
  readonly #options: DerivedStatusOptions<T>;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #hasBegun = false;
  #touched = new Set<string>();

  constructor(options: DerivedStatusOptions<T>) {
    this.#options = options;
  }

  /** All that statuses follow from has been read: what was touched meanwhile is looked at from now on. */
  begin(): void {
    this.#hasBegun = true;
    if (this.#touched.size > 0) this.#schedule();
  }

  /** Something that the status of the object of that name follows from has changed. */
  touch(name: string): void {
    if (this.#closed) return;
    this.#touched.add(name);
    if (this.#hasBegun) this.#schedule();
  }

  #schedule(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#write();
    }, SETTLE_MS).unref();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  async #write(): Promise<void> {
    const touched = [...this.#touched];
    this.#touched.clear();
    while (touched.length > 0) {
      const part = new Set(touched.splice(-AT_ONCE));
      for (const object of this.#options.outdated(part)) {
        if (this.#closed) return;
        // Overtaken by the controller's own write, or not reached: once more, from what there is then.
        await this.#options.write(object).catch(() => part.forEach((name) => this.touch(name)));
      }
      await nextTurn();
    }
  }
}

/**
 * The shards whose number of tenants is not what it says, with the right one.
 * @param counts of those that have any
 */
export function outdatedShards(counts: ReadonlyMap<string, number>, shards: Iterable<SynapseShard>): SynapseShard[] {
  return [...shards].flatMap((shard) => {
    const count = counts.get(shard.spec.name) ?? 0;
    const isRight = shard.status?.tenants === count || shard.metadata?.deletionTimestamp !== undefined;
    return isRight ? [] : [{ ...shard, status: { ...shard.status, tenants: count } }];
  });
}

/**
 * Tenants whose cluster is not here, with a status that says so: nobody else would. A tenant that another cluster takes care of is left alone.
 * @param clusters those that there are in the namespace
 */
export function strayTenants(
  tenants: Iterable<SynapseTenant>,
  clusters: ReadonlySet<string>,
  namespace: string,
): SynapseTenant[] {
  return [...tenants].flatMap((tenant) => {
    const { clusterId } = tenant.spec;
    if (clusters.has(clusterId) || tenant.metadata?.deletionTimestamp !== undefined) return [];
    const names = clusters.size === 0 ? "none" : [...clusters].toSorted().join(", ");
    const message = `no cluster ${clusterId} is in the namespace ${namespace}; there is ${names}`;
    const { phase, message: said } = tenant.status ?? {};
    // It may have run in a cluster that was uninstalled: what it was is kept.
    if (said === message || (phase !== undefined && phase !== "Pending")) return [];
    return [{ ...tenant, status: { ...tenant.status, phase: "Pending" as const, reason: "UnknownCluster", message } }];
  });
}

const STORE_CONDITIONS: ReadonlySet<string> = new Set(["SecretsReadable", "AdminAccess"]);

/** Whether a tenant's configuration and keys can be read; what runs of it goes on in either case. */
export function secretsFinding(problem: SecretProblem | undefined): Finding {
  return problem
    ? { type: "SecretsReadable", status: "False", ...problem }
    : { type: "SecretsReadable", status: "True", reason: "Read", message: "" };
}

/**
 * The tenants whose conditions about what the store alone knows are not what they should be, with the right ones.
 * @param findingsOf some of `STORE_CONDITIONS`
 */
export function outdatedTenants(
  tenants: Iterable<SynapseTenant>,
  findingsOf: (tenant: SynapseTenant) => readonly Finding[],
  now: string,
): SynapseTenant[] {
  return [...tenants].flatMap((tenant) => {
    // One without a status is new: its first write has the conditions.
    if (tenant.status?.conditions === undefined || tenant.metadata?.deletionTimestamp !== undefined) return [];
    const { conditions } = tenant.status;
    const findings = findingsOf(tenant);
    const present = conditions.filter(({ type }) => STORE_CONDITIONS.has(type));
    const isRight = ({ type, status, reason, message }: Finding) =>
      present.some(
        (one) => one.type === type && one.status === status && one.reason === reason && one.message === message,
      );
    if (present.length === findings.length && findings.every(isRight)) return [];
    const others: Condition[] = conditions.filter(({ type }) => !STORE_CONDITIONS.has(type));
    const right = findings.map((finding) => {
      const before = present.find(({ type }) => type === finding.type);
      return conditionOf(finding, before, now, tenant.metadata?.generation);
    });
    return [{ ...tenant, status: { ...tenant.status, conditions: [...others, ...right] } }];
  });
}
