import { CoreV1Api, type KubeConfig, type V1Secret } from "@kubernetes/client-node";
import { messageOf, UserError } from "../../../model/errors.ts";
import {
  compareText,
  isMonth,
  type UsageMonth,
  type UsageOwner,
  type UsagePosition,
} from "../../../model/usage-month.ts";
import type { UsageEntry, UsageHistory } from "../../../ports/usage-history.ts";
import { attempt, isStatus, retrying } from "../api-error.ts";
import { apiClient } from "../client.ts";
import { allPages } from "../list-and-watch.ts";
import { packed, unpacked, type UsageRecord } from "./usage-rows.ts";

/** On each Secret: the cluster. */
const LABEL = "synapse-shards.io/usage-of";
const KEY = "usage.json.gz";
/** At most 3 KiB each before they are compressed: Kubernetes takes 1 MiB in an object. */
const TENANTS_EACH = 200;
const WRITE_EVERY_MS = 3_600_000;
/** Each may have hundreds of kilobytes. */
const LISTED_AT_ONCE = 50;

export interface SecretUsageOptions {
  config: KubeConfig;
  namespace: string;
  clusterId: string;
  /** Told in words what could not be written; it is tried again. */
  onError: (message: string) => void;
  tenantsEach?: number;
  writeEveryMs?: number;
}

/** Some tenants in one object: where each is counted on and its months are written together. */
interface Part {
  name: string;
  keys: Set<string>;
  /** Of the object that the API server has. */
  metadata?: NonNullable<V1Secret["metadata"]>;
  isChanged: boolean;
}

/**
 * What tenants took, in memory, and in a few Secrets that the leader writes once an hour, and when it stops in order. A leader that is killed takes
 * with it what it had not written of starts that have ended; what runs is counted again by the next one.
 */
export class SecretUsageHistory implements UsageHistory {
  readonly #options: SecretUsageOptions;
  readonly #api: CoreV1Api;
  readonly #records = new Map<string, UsageRecord>();
  /** Tenants of one name, at different times. */
  readonly #keysOf = new Map<string, Set<string>>();
  readonly #partOf = new Map<string, Part>();
  readonly #parts: Part[] = [];
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: SecretUsageOptions) {
    this.#options = options;
    this.#api = apiClient(options.config, CoreV1Api);
  }

  /** Resolves when all of it has been read. @throws UserError */
  static async open(options: SecretUsageOptions): Promise<SecretUsageHistory> {
    const history = new SecretUsageHistory(options);
    await history.#read();
    const { writeEveryMs = WRITE_EVERY_MS, onError } = options;
    history.#timer = setInterval(() => {
      history.flush().catch((error: unknown) => onError(`what tenants take is not written: ${messageOf(error)}`));
    }, writeEveryMs).unref();
    return history;
  }

  /** Writes what there is to write. @throws UserError */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }

  async list(tenant?: string): Promise<UsageMonth[]> {
    const keys = tenant === undefined ? this.#records.keys() : (this.#keysOf.get(tenant) ?? []);
    const rows = this.#sorted(keys).flatMap(rowsOf);
    return rows.toSorted((a, b) => compareText(a.tenant, b.tenant) || compareText(a.month, b.month));
  }

  async around(month: string): Promise<UsageMonth[]> {
    return this.#sorted(this.#records.keys()).flatMap((record) => {
      const rows = rowsOf(record);
      const upTo = rows.findLast((row) => row.month <= month);
      const after = rows.find((row) => row.month > month);
      return [...(upTo ? [upTo] : []), ...(after ? [after] : [])];
    });
  }

  async position(owner: UsageOwner): Promise<UsagePosition | undefined> {
    return this.#records.get(keyOf(owner))?.position;
  }

  async owners(): Promise<UsageOwner[]> {
    return this.#ownersOf(() => true);
  }

  async unread(): Promise<UsageOwner[]> {
    return this.#ownersOf(({ usedAt, readAt }) => readAt === undefined || (usedAt !== undefined && usedAt > readAt));
  }

  async write(entries: readonly UsageEntry[]): Promise<void> {
    for (const { months } of entries)
      for (const { month } of months) if (!isMonth(month)) throw new UserError("InvalidInput", `${month} is no month`);
    for (const { position, months } of entries) {
      const key = keyOf(position);
      const before = this.#records.get(key)?.months ?? new Map<string, UsageMonth>();
      this.#keep({ position, months: new Map([...before, ...months.map((row) => [row.month, row] as const)]) });
      this.#place(key).isChanged = true;
    }
  }

  async prune(oldest: string, isThere: (owner: UsageOwner) => boolean): Promise<void> {
    for (const [key, { position, months }] of this.#records) {
      const newest = [...months.keys()].reduce((a, b) => (a > b ? a : b), "");
      const kept = [...months].filter(([month]) => month >= oldest || (month === newest && isThere(position)));
      if (kept.length === months.size) continue;
      this.#place(key).isChanged = true;
      if (kept.length > 0) this.#keep({ position, months: new Map(kept) });
      else this.#forget(key, position);
    }
  }

  /** One after the other. @throws UserError where one could not be written; the others are */
  flush(): Promise<void> {
    const written = this.#writing.then(async () => {
      const problems: unknown[] = [];
      for (const part of this.#parts)
        if (part.isChanged) await this.#writePart(part).catch((error: unknown) => problems.push(error));
      if (problems.length > 0) throw problems[0];
    });
    this.#writing = written.catch(() => {});
    return written;
  }

  async #read(): Promise<void> {
    const { namespace, clusterId } = this.#options;
    const { items } = await attempt("list the Secrets of what tenants take", () =>
      allPages(
        (page) =>
          retrying(() =>
            this.#api.listNamespacedSecret({ namespace, labelSelector: `${LABEL}=${clusterId}`, ...page }),
          ),
        LISTED_AT_ONCE,
      ),
    );
    for (const secret of items) {
      const { metadata = {} } = secret;
      const part: Part = { name: metadata.name ?? "", keys: new Set(), metadata, isChanged: false };
      this.#parts.push(part);
      for (const record of recordsIn(secret)) {
        const key = this.#keep(record);
        this.#partOf.set(key, part);
        part.keys.add(key);
      }
    }
  }

  /** The object that a tenant's figures are in, or will be in. */
  #place(key: string): Part {
    const present = this.#partOf.get(key);
    if (present) return present;
    const { clusterId, tenantsEach = TENANTS_EACH } = this.#options;
    let part = this.#parts.find(({ keys }) => keys.size < tenantsEach);
    if (!part) {
      const names = new Set(this.#parts.map(({ name }) => name));
      let number = this.#parts.length;
      // The dots keep it apart from what tenants' owners call their Secrets.
      const nameOf = (n: number) => `${clusterId}.usage.${n}`;
      while (names.has(nameOf(number))) number += 1;
      part = { name: nameOf(number), keys: new Set(), isChanged: true };
      this.#parts.push(part);
    }
    part.keys.add(key);
    this.#partOf.set(key, part);
    return part;
  }

  #keep(record: UsageRecord): string {
    const key = keyOf(record.position);
    const { tenant } = record.position;
    this.#records.set(key, record);
    this.#keysOf.set(tenant, (this.#keysOf.get(tenant) ?? new Set()).add(key));
    return key;
  }

  #forget(key: string, { tenant }: UsageOwner): void {
    this.#records.delete(key);
    const others = this.#keysOf.get(tenant);
    others?.delete(key);
    if (others?.size === 0) this.#keysOf.delete(tenant);
    this.#partOf.get(key)?.keys.delete(key);
    this.#partOf.delete(key);
  }

  async #writePart(part: Part): Promise<void> {
    const { namespace, clusterId } = this.#options;
    const { name } = part;
    const bytes = packed([...part.keys].flatMap((key) => this.#records.get(key) ?? []));
    // What comes while it is on its way is of the next time.
    part.isChanged = false;
    const body: V1Secret = {
      metadata: { ...part.metadata, name, namespace, labels: { ...part.metadata?.labels, [LABEL]: clusterId } },
      data: { [KEY]: bytes.toString("base64") },
    };
    try {
      const written = await attempt(`write the Secret ${name}`, () =>
        retrying(() =>
          part.metadata
            ? this.#api.replaceNamespacedSecret({ namespace, name, body })
            : this.#api.createNamespacedSecret({ namespace, body }),
        ),
      );
      part.metadata = written.metadata ?? {};
    } catch (error) {
      part.isChanged = true;
      // Somebody else wrote to it, or an answer was lost: this leader's figures count, and go over it the next time.
      const { cause } = error as Error;
      if (isStatus(cause, 404)) delete part.metadata;
      if (isStatus(cause, 409)) await this.#lookAgain(part).catch(() => {});
      throw error;
    }
  }

  async #lookAgain(part: Part): Promise<void> {
    const { namespace } = this.#options;
    const { metadata } = await this.#api.readNamespacedSecret({ namespace, name: part.name });
    if (metadata) part.metadata = metadata;
  }

  /** By tenant. */
  #sorted(keys: Iterable<string>): UsageRecord[] {
    return [...keys].toSorted(compareText).flatMap((key) => this.#records.get(key) ?? []);
  }

  #ownersOf(isAsked: (position: UsagePosition) => boolean): UsageOwner[] {
    const asked = this.#sorted(this.#records.keys()).filter(({ position }) => isAsked(position));
    return asked.map(({ position: { tenant, serverName } }) => ({ tenant, serverName }));
  }
}

function rowsOf({ months }: UsageRecord): UsageMonth[] {
  return [...months.values()].toSorted((a, b) => compareText(a.month, b.month));
}

function keyOf({ tenant, serverName }: UsageOwner): string {
  return `${tenant} ${serverName}`;
}

function recordsIn({ metadata, data }: V1Secret): UsageRecord[] {
  const text = data?.[KEY];
  if (text === undefined) return [];
  try {
    return unpacked(Buffer.from(text, "base64"));
  } catch (error) {
    // Without it, what was counted before would be counted again.
    throw new UserError(
      "Environment",
      `the Secret ${metadata?.name} has usage of tenants that cannot be read (${messageOf(error)}): put back what it was, or delete it`,
      { cause: error },
    );
  }
}
