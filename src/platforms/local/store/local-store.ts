import { chmodSync, renameSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { backup, DatabaseSync, type StatementSync } from "node:sqlite";
import { isDeepStrictEqual } from "node:util";
import { UserError } from "../../../model/errors.ts";
import type { ConfigInEffect } from "../../../model/config-meaning.ts";
import type { ClusterEvent } from "../../../model/event.ts";
import type { TenantSecretData } from "../../../model/tenant-secrets.ts";
import { withPresentNames } from "../../../model/renamed-fields.ts";
import { backupOf } from "./store-file.ts";
import { DELETED_SCHEMA, LocalDeletedTenants } from "./local-deleted-tenants.ts";
import { CERTIFICATES_SCHEMA, LocalCertificates } from "./local-certificates.ts";
import { LocalUsageHistory, renameUsage, USAGE_SCHEMA } from "./local-usage-history.ts";
import { SecretBox } from "./secret-box.ts";
import type { DeletedTenants } from "../../../ports/deleted-tenants.ts";
import type { CertificateStore } from "../../../ports/certificates.ts";
import type { UsageHistory } from "../../../ports/usage-history.ts";
import { ConflictError, type Change, type Kind, type Kinds, type Store } from "../../../ports/store.ts";

/** Enough to look back over days of a busy cluster, small enough to list. */
const EVENTS_KEPT = 10_000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS resources (
    kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name)) STRICT;
  CREATE TABLE IF NOT EXISTS secrets (tenant TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS configs_in_effect (tenant TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY AUTOINCREMENT, object TEXT NOT NULL, body TEXT NOT NULL) STRICT;
`;
const FORMAT = 3;
/** Sealed with the key, it tells whether a key is the right one. */
const KEY_CHECK = "the key of this store";

interface Row {
  version: number;
  body: string;
}

export interface LocalStoreOptions {
  now?: () => Date;
  /** Seals what may be secret: keys of tenants, and their configurations. Without one they are in the file as they are. */
  box?: SecretBox;
  /** Keeps a copy beside the file, renewed this many seconds after each change of what tenants there are, or of their keys. */
  backupAfterSeconds?: number;
}

/** The store of one machine: one SQLite file, written by the controller alone. */
export class LocalStore implements Store {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #now: () => Date;
  readonly #listeners = new Set<(change: Change) => void>();
  readonly #eventListeners = new Set<(event: ClusterEvent) => void>();
  /** Of all objects: an object that is created again must not bear a version that its forerunner had. */
  #lastVersion: number;
  readonly #file: string;
  readonly #box: SecretBox | undefined;
  readonly #backupAfterMs: number | undefined;
  #backup: Promise<void> | undefined;
  #backupAgain = false;
  readonly #closing = new AbortController();
  readonly deleted: DeletedTenants;
  readonly usage: UsageHistory;
  readonly certificates: CertificateStore;

  /**
   * @param file its path; it is made readable by its owner only
   * @throws UserError Environment when the file is another version's, or the key another file's
   */
  constructor(file: string, { now = () => new Date(), box, backupAfterSeconds }: LocalStoreOptions = {}) {
    this.#now = now;
    this.#file = file;
    this.#box = box;
    this.#backupAfterMs = backupAfterSeconds === undefined ? undefined : backupAfterSeconds * 1000;
    this.#db = new DatabaseSync(file);
    if (file !== ":memory:") chmodSync(file, 0o600);
    // FULL: what was answered must survive a power cut, since steps of moves are written before they are done.
    this.#db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;");
    const { user_version: found } = this.#db.prepare("PRAGMA user_version").get() as { user_version: number };
    if (found > FORMAT) {
      throw new UserError(
        "Environment",
        `${file} was written by a newer synapse-shards (format ${found}, this one knows ${FORMAT})`,
      );
    }
    this.#db.exec(SCHEMA + DELETED_SCHEMA + USAGE_SCHEMA + CERTIFICATES_SCHEMA);
    if (found === 1) this.#renameFields();
    if (box) this.#sealAll(box);
    this.#db.exec(`PRAGMA user_version = ${FORMAT}`);
    const { last } = this.#db.prepare("SELECT coalesce(max(version), 0) AS last FROM resources").get() as {
      last: number;
    };
    this.#lastVersion = last;
    const sealing = {
      sealed: (place: string, text: string) => this.#sealed(place, text),
      opened: (place: string, text: string) => this.#opened(place, text),
    };
    this.deleted = new LocalDeletedTenants(this.#db, sealing, () => this.#renewBackup());
    this.usage = new LocalUsageHistory(this.#db);
    this.certificates = new LocalCertificates(this.#db, sealing, () => this.#renewBackup());
  }

  /** Format 1 had other names of fields. */
  #renameFields(): void {
    const rows = this.#db.prepare("SELECT kind, name, body FROM resources").all() as unknown as (Row & {
      kind: string;
      name: string;
    })[];
    const write = this.#db.prepare("UPDATE resources SET body = ? WHERE kind = ? AND name = ?");
    this.#db.exec("BEGIN");
    for (const { kind, name, body } of rows) write.run(JSON.stringify(withPresentNames(JSON.parse(body))), kind, name);
    this.#db.exec("COMMIT");
  }

  async list<K extends Kind>(kind: K): Promise<Kinds[K][]> {
    const rows = this.#statement("SELECT body FROM resources WHERE kind = ? ORDER BY name").all(
      kind,
    ) as unknown as Row[];
    return rows.map((row) => this.#read<Kinds[K]>(row.body));
  }

  async get<K extends Kind>(kind: K, name: string): Promise<Kinds[K] | undefined> {
    const row = this.#row(kind, name);
    return row && this.#read<Kinds[K]>(row.body);
  }

  async create<K extends Kind>(
    kind: K,
    name: string,
    spec: Kinds[K]["spec"],
    status: Kinds[K]["status"],
  ): Promise<Kinds[K]> {
    const version = this.#lastVersion + 1;
    const creationTimestamp = this.#now().toISOString();
    const metadata = { name, resourceVersion: String(version), generation: 1, creationTimestamp };
    const resource = { kind, metadata, spec, status } as unknown as Kinds[K];
    const { changes } = this.#statement(
      "INSERT INTO resources (kind, name, version, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
    ).run(kind, name, version, this.#written(resource));
    if (changes === 0) throw new UserError("AlreadyExists", `there is a ${kind.toLowerCase()} named ${name} already`);
    this.#lastVersion = version;
    if (kind === "Tenant") this.#renewBackup();
    return this.#announce("Added", resource);
  }

  async update<K extends Kind>(resource: Kinds[K]): Promise<Kinds[K]> {
    const { next, specChanged } = this.#replace(resource);
    if (next.kind === "Tenant" && specChanged) this.#renewBackup();
    return this.#announce("Modified", next);
  }

  #replace<R extends Kinds[Kind]>(resource: R): { next: R; specChanged: boolean } {
    const { kind, metadata } = resource;
    const row = this.#row(kind, metadata.name);
    if (!row || String(row.version) !== metadata.resourceVersion) throw new ConflictError(kind, metadata.name);
    const old = this.#read<R>(row.body);
    const specChanged = !isDeepStrictEqual(normal(old.spec), normal(resource.spec));
    const version = this.#lastVersion + 1;
    const next = {
      ...resource,
      metadata: {
        ...metadata,
        resourceVersion: String(version),
        generation: old.metadata.generation + (specChanged ? 1 : 0),
        creationTimestamp: old.metadata.creationTimestamp,
      },
    };
    this.#statement("UPDATE resources SET version = ?, body = ? WHERE kind = ? AND name = ? AND version = ?").run(
      version,
      this.#written(next),
      kind,
      metadata.name,
      row.version,
    );
    this.#lastVersion = version;
    return { next, specChanged };
  }

  async rename(tenant: Kinds["Tenant"], to: string, others: readonly Kinds["Tenant"][] = []): Promise<Kinds["Tenant"]> {
    const { name, resourceVersion } = tenant.metadata;
    const row = this.#row("Tenant", name);
    if (!row || String(row.version) !== resourceVersion) throw new ConflictError("Tenant", name);
    if (this.#row("Tenant", to)) throw new UserError("AlreadyExists", `there is a tenant named ${to} already`);
    const old = this.#read<Kinds["Tenant"]>(row.body);
    const version = this.#lastVersion + 1;
    const metadata = { ...old.metadata, name: to, resourceVersion: String(version) };
    const next = { ...tenant, metadata, spec: old.spec };
    const replaced: Kinds["Tenant"][] = [];
    this.#db.exec("BEGIN");
    try {
      this.#lastVersion = version;
      for (const other of others) if (other.metadata.name !== name) replaced.push(this.#replace(other).next);
      this.#statement("DELETE FROM resources WHERE kind = 'Tenant' AND name = ?").run(name);
      this.#statement("INSERT INTO resources (kind, name, version, body) VALUES ('Tenant', ?, ?, ?)").run(
        to,
        version,
        this.#written(next),
      );
      this.#statement("UPDATE events SET object = ?, body = json_set(body, '$.object', ?) WHERE object = ?").run(
        `Tenant/${to}`,
        `Tenant/${to}`,
        `Tenant/${name}`,
      );
      renameUsage(this.#db, { tenant: name, serverName: old.spec.serverName }, to);
      this.#db.exec("COMMIT");
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
    this.#renewBackup();
    const announced = this.#announce("Added", next);
    this.#announce("Deleted", old);
    for (const other of replaced) this.#announce("Modified", other);
    return announced;
  }

  async remove(kind: Kind, name: string): Promise<void> {
    const row = this.#row(kind, name);
    if (!row) return;
    this.#statement("DELETE FROM resources WHERE kind = ? AND name = ?").run(kind, name);
    if (kind === "Tenant") this.#renewBackup();
    this.#announce("Deleted", this.#read<Kinds[Kind]>(row.body));
  }

  watch(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async readSecret(tenant: string): Promise<TenantSecretData | undefined> {
    const row = this.#statement("SELECT body FROM secrets WHERE tenant = ?").get(tenant) as Row | undefined;
    return row && (JSON.parse(this.#opened(`secrets/${tenant}`, row.body)) as TenantSecretData);
  }

  async writeSecret(tenant: string, data: TenantSecretData): Promise<void> {
    this.#statement(
      "INSERT INTO secrets (tenant, body) VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE SET body = excluded.body",
    ).run(tenant, this.#sealed(`secrets/${tenant}`, JSON.stringify(data)));
    this.#renewBackup();
  }

  async removeSecret(tenant: string): Promise<void> {
    this.#statement("DELETE FROM secrets WHERE tenant = ?").run(tenant);
    this.#statement("DELETE FROM configs_in_effect WHERE tenant = ?").run(tenant);
    this.#renewBackup();
  }

  async readConfigInEffect(tenant: string): Promise<ConfigInEffect | undefined> {
    const row = this.#statement("SELECT body FROM configs_in_effect WHERE tenant = ?").get(tenant) as Row | undefined;
    return row && (JSON.parse(this.#opened(`configs/${tenant}`, row.body)) as ConfigInEffect);
  }

  async writeConfigInEffect(tenant: string, config: ConfigInEffect): Promise<void> {
    this.#statement(
      "INSERT INTO configs_in_effect (tenant, body) VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE SET body = excluded.body",
    ).run(tenant, this.#sealed(`configs/${tenant}`, JSON.stringify(config)));
  }

  async appendEvent(event: Omit<ClusterEvent, "id" | "time">): Promise<ClusterEvent> {
    const body = { time: this.#now().toISOString(), ...event };
    const { lastInsertRowid } = this.#statement("INSERT INTO events (object, body) VALUES (?, ?)").run(
      event.object,
      JSON.stringify(body),
    );
    const id = Number(lastInsertRowid);
    if (id % 100 === 0) this.#statement("DELETE FROM events WHERE id <= ?").run(id - EVENTS_KEPT);
    const complete: ClusterEvent = { id, ...body };
    queueMicrotask(() => this.#eventListeners.forEach((listener) => listener(complete)));
    return complete;
  }

  async listEvents(options: { after?: number; object?: string; limit: number }): Promise<ClusterEvent[]> {
    const rows = this.#statement(
      "SELECT id, body FROM events WHERE id > ? AND (? IS NULL OR object = ?) ORDER BY id DESC LIMIT ?",
    ).all(options.after ?? 0, options.object ?? null, options.object ?? null, options.limit);
    return rows
      .map((row) => ({ id: Number(row["id"]), ...JSON.parse(String(row["body"])) }) as ClusterEvent)
      .toReversed();
  }

  watchEvents(listener: (event: ClusterEvent) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    this.#eventListeners.clear();
    this.#closing.abort();
    await this.#backup;
    this.#db.close();
  }

  /** Several changes in a row are in one copy. */
  #renewBackup(): void {
    if (this.#backupAfterMs === undefined || this.#closing.signal.aborted) return;
    if (this.#backup) {
      this.#backupAgain = true;
      return;
    }
    const renew = async (): Promise<void> => {
      // A store that is closed meanwhile is copied at once.
      await sleep(this.#backupAfterMs, undefined, { signal: this.#closing.signal, ref: false }).catch(() => {});
      this.#backupAgain = false;
      await backup(this.#db, `${backupOf(this.#file)}.new`);
      chmodSync(`${backupOf(this.#file)}.new`, 0o600);
      renameSync(`${backupOf(this.#file)}.new`, backupOf(this.#file));
    };
    this.#backup = renew()
      // Without room for a copy the store itself still works; the next change tries again.
      .catch(() => {})
      .finally(() => {
        this.#backup = undefined;
        if (this.#backupAgain) this.#renewBackup();
      });
  }

  /** Seals what an earlier version, or one without a key, has written. */
  #sealAll(box: SecretBox): void {
    const check = this.#db.prepare("SELECT body FROM meta WHERE name = 'key'").get() as { body: string } | undefined;
    if (check) {
      try {
        box.open("meta/key", check.body);
        return;
      } catch (error) {
        throw new UserError(
          "Environment",
          `the key given for ${this.#file} is not the one its secrets are sealed with`,
          {
            cause: error,
          },
        );
      }
    }
    // What was there before must not stay in pages that are free now.
    this.#db.exec("PRAGMA secure_delete = ON; BEGIN");
    for (const [table, place] of [
      ["secrets", "secrets"],
      ["configs_in_effect", "configs"],
    ] as const) {
      const write = this.#db.prepare(`UPDATE ${table} SET body = ? WHERE tenant = ?`);
      for (const { tenant, body } of this.#db.prepare(`SELECT tenant, body FROM ${table}`).all())
        write.run(box.seal(`${place}/${String(tenant)}`, String(body)), String(tenant));
    }
    const write = this.#db.prepare("UPDATE resources SET body = ? WHERE kind = 'Tenant' AND name = ?");
    for (const { name, body } of this.#db.prepare("SELECT name, body FROM resources WHERE kind = 'Tenant'").all())
      write.run(this.#written(JSON.parse(String(body)) as Kinds["Tenant"]), String(name));
    this.#db.prepare("INSERT INTO meta VALUES ('key', ?)").run(box.seal("meta/key", KEY_CHECK));
    this.#db.exec("COMMIT; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
  }

  #sealed(place: string, text: string): string {
    return this.#box ? this.#box.seal(place, text) : text;
  }

  #opened(place: string, text: string): string {
    return this.#box && SecretBox.isSealed(text) ? this.#box.open(place, text) : text;
  }

  /** A tenant's configuration may hold passwords; the rest can be read by anyone who looks for what is wrong. */
  #written(resource: Kinds[Kind]): string {
    if (!this.#box || resource.kind !== "Tenant" || resource.spec.config === "") return JSON.stringify(resource);
    const config = this.#box.seal(`tenants/${resource.metadata.name}`, resource.spec.config);
    return JSON.stringify({ ...resource, spec: { ...resource.spec, config } });
  }

  #read<R extends Kinds[Kind]>(body: string): R {
    const resource = JSON.parse(body) as R;
    if (!this.#box || resource.kind !== "Tenant" || !SecretBox.isSealed(resource.spec.config)) return resource;
    resource.spec.config = this.#box.open(`tenants/${resource.metadata.name}`, resource.spec.config);
    return resource;
  }

  /** Compiled once: that takes longer than most of them do. */
  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, (statement = this.#db.prepare(sql)));
    return statement;
  }

  #row(kind: Kind, name: string): Row | undefined {
    const row = this.#statement("SELECT version, body FROM resources WHERE kind = ? AND name = ?").get(kind, name);
    return row as Row | undefined;
  }

  #announce<R extends Kinds[Kind]>(type: Change["type"], resource: R): R {
    const text = JSON.stringify(resource);
    queueMicrotask(() => {
      for (const listener of this.#listeners) {
        listener({ type, kind: resource.kind, resource: JSON.parse(text) });
      }
    });
    return JSON.parse(text) as R;
  }
}

/** Without keys whose value is undefined, as JSON has them. */
function normal(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
