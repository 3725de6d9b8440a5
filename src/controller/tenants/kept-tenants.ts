/**
 * Deleted tenants, whose data is kept for a while: they can be had back, and in the end their data is removed, of which a proof remains.
 *
 * Nothing is removed before it is written down that it will be, with what there is; each part can be repeated, the proof comes last. One tenant is
 * dealt with at a time, so that nobody has one back while its data is removed.
 */
import { createHash } from "node:crypto";
import { messageOf, UserError } from "../../model/errors.ts";
import { timeText } from "../../model/clock.ts";
import { newTenantStatus, type Tenant, type TenantStatus } from "../../model/tenant.ts";
import {
  deletedTenant,
  keptStatus,
  reservation,
  type BegunPurge,
  type DeletedTenant,
  type PurgeProof,
  type PurgeReason,
  type RemovedData,
} from "../../model/deleted-tenant.ts";
import type { TenantDatabases } from "../../ports/databases.ts";
import type { DeletedTenants } from "../../ports/deleted-tenants.ts";
import { storageField } from "../../model/storage-name.ts";
import { recordEvent, type ControllerContext, type Deletions } from "../context.ts";
import type { TenantNames } from "./reserved-names.ts";
import { isFree, ownerOf, refuseRenamedTo, storageFor } from "./storage-names.ts";

const DAY_MS = 86_400_000;

/**
 * What is on a server that the configuration does not name cannot be removed, and nobody may be told that it was.
 * @throws UserError Conflict
 */
export function refuseUnknownServers(
  databases: Pick<TenantDatabases, "address">,
  name: string,
  {
    databaseServer,
    formerDatabases = [],
    databaseMove,
  }: Pick<TenantStatus, "databaseServer" | "formerDatabases" | "databaseMove">,
): void {
  for (const server of [databaseServer, databaseMove?.to, ...formerDatabases.map((former) => former.server)]) {
    if (server === undefined) continue;
    try {
      databases.address({ metadata: { name }, status: { databaseServer: server } });
    } catch (error) {
      throw new UserError(
        "Conflict",
        `the data of ${name} cannot be removed: ${messageOf(error)}; where it is gone for good, give its name to another server`,
        { cause: error },
      );
    }
  }
}

export class KeptTenants {
  readonly #context: ControllerContext;
  readonly #deletions: Deletions;
  readonly #records: DeletedTenants;

  constructor(context: ControllerContext, deletions: Deletions) {
    this.#context = context;
    this.#deletions = deletions;
    this.#records = deletions.records;
  }

  /** Notes a tenant that is about to be gone from the store. */
  async keep(tenant: Tenant, managedDatabase: boolean): Promise<DeletedTenant> {
    const record = this.#recordOf(tenant, managedDatabase);
    await this.#records.put(record);
    return record;
  }

  /** Whether what is kept under its name is another tenant's, for which it was turned away. */
  async isTurnedAway({ metadata: { name }, spec, status }: Tenant): Promise<boolean> {
    if (status.epoch > 0 || status.provisioned) return false;
    const record = await this.#records.get(name);
    return record !== undefined && record.spec.serverName !== spec.serverName;
  }

  /** Notes that its data is about to be removed, with what there is. @throws UserError Conflict */
  async beginPurge(tenant: Tenant, managedDatabase: boolean): Promise<DeletedTenant & { purge: BegunPurge }> {
    const present = await this.#records.get(tenant.metadata.name);
    const record = this.#recordOf(tenant, managedDatabase);
    const known = present?.deletedAt === record.deletedAt ? present : record;
    return this.#begin(known, "Requested");
  }

  async endPurge({
    name,
    spec,
    createdAt,
    deletedAt,
    purge,
  }: DeletedTenant & { purge: BegunPurge }): Promise<PurgeProof> {
    const { reason, removed } = purge;
    const purgedAt = timeText(this.#context.clock.now());
    const { serverName } = spec;
    const proof = await this.#records.prove({ name, serverName, createdAt, deletedAt, purgedAt, reason, removed });
    await this.#records.remove(name);
    return proof;
  }

  /** Removes what is kept of a deleted tenant. @throws UserError NotFound, Conflict where the tenant is there */
  purge(name: string): Promise<PurgeProof> {
    return this.#deletions.lock.run(async () => {
      await this.#refusePresent(name, "delete it with --purge");
      const record = (await this.#records.get(name)) ?? (await this.#found(name));
      if (!record) throw new UserError("NotFound", `nothing is kept of a deleted tenant ${name}`);
      return this.#purge(record, "Requested");
    });
  }

  /** Has a deleted tenant back as it was. @param check refuses one whose host another has by now */
  undelete(name: string, check: (tenant: Pick<Tenant, "metadata" | "spec" | "status">) => void): Promise<Tenant> {
    return this.#deletions.lock.run(async () => {
      await this.#refusePresent(name, "it is not deleted");
      const record = await this.#records.get(name);
      if (!record) throw new UserError("NotFound", `there is no deleted tenant ${name} that can be had back`);
      if (record.purge)
        throw new UserError("Conflict", `the data of ${name} is being removed since ${record.purge.since}`);
      const spec = { ...record.spec, reclaimPolicy: "Retain" as const };
      const { storage = name } = record;
      this.#deletions.reserved.refuse({ name, serverName: spec.serverName, storage });
      const status = { ...newTenantStatus(), ...keptStatus(record), ...storageField(storage, name) };
      const creationTimestamp = timeText(this.#context.clock.now());
      check({ metadata: { name, creationTimestamp, resourceVersion: "", generation: 0 }, spec, status });
      const create = () => this.#context.store.create("Tenant", name, spec, status);
      const tenant = await (this.#deletions.recreate?.(record, status) ?? create());
      await this.#records.remove(name);
      await this.#say(name, "Undeleted", `${name} is back, with the data that was kept`);
      return tenant;
    });
  }

  /**
   * Creates a tenant, which takes up what is kept of one of its name.
   * @param create gets what its data are named by
   * @param made the names that were reserved for it, where its data are there already @throws UserError AlreadyExists where a name is reserved
   */
  create(
    name: string,
    serverName: string,
    create: (storage: string, kept: ReturnType<typeof keptStatus>) => Promise<Tenant>,
    made?: TenantNames,
  ): Promise<Tenant> {
    return this.#deletions.lock.run(async () => {
      refuseRenamedTo(this.#context, name);
      this.#deletions.reserved.refuse({ name, serverName, ...made }, made);
      let isOwnAgain = false;
      let kept: ReturnType<typeof keptStatus> = {};
      for (const record of await this.#records.list()) {
        const reserved = reservation(record, { name, serverName });
        if (reserved !== undefined) throw new UserError("AlreadyExists", reserved);
        if (record.name !== name) continue;
        isOwnAgain = true;
        if (record.purge)
          throw new UserError("Conflict", `the data of a deleted tenant ${name} is being removed; try again later`);
        kept = keptStatus(record);
      }
      if (made && !isOwnAgain && (await ownerOf(this.#context, made.storage)) !== undefined)
        throw new UserError("Conflict", `data of another tenant is named ${made.storage}; try again`);
      const storage = made?.storage ?? (await storageFor(this.#context, name, serverName));
      const tenant = await create(storage, kept);
      await this.#records.remove(name);
      return tenant;
    });
  }

  /** @param isDue whether a time is over @returns how many are gone now */
  async expire(isDue: (record: DeletedTenant) => boolean): Promise<number> {
    let gone = 0;
    for (const { name } of await this.#records.list())
      await this.#deletions.lock.run(async () => {
        const record = await this.#records.get(name);
        if (!record) return;
        const present = await this.#context.store.get("Tenant", name);
        // It came back, or is still being deleted, and somebody was killed between two steps. One of another server name waits for its end.
        const isItself = present?.spec.serverName === record.spec.serverName;
        if (isItself && present.metadata.deletionTimestamp === undefined) return this.#records.remove(name);
        if (isItself || !(record.purge || isDue(record))) return;
        try {
          await this.#purge(record, "Expired");
          gone += 1;
        } catch (error) {
          this.#context.log.warn(
            { tenant: name, why: messageOf(error) },
            "kept data cannot be removed; tried again later",
          );
        }
      });
    return gone;
  }

  async #purge(record: DeletedTenant, reason: PurgeReason): Promise<PurgeProof> {
    const { databases, store } = this.#context;
    const { name, storage = name } = record;
    this.#deletions.reserved.refuse({ name, storage });
    refuseUnknownServers(databases, name, record);
    const begun = await this.#begin(record, reason);
    await databases.drop(storage);
    await this.#context.removeMedia(storage);
    await store.removeSecret(storage);
    const proof = await this.endPurge(begun);
    const why = begun.purge.reason === "Expired" ? "its time is over" : "as requested";
    await this.#say(name, "Purged", `what was kept of the deleted tenant ${name} was removed, ${why}`);
    return proof;
  }

  async #begin(record: DeletedTenant, reason: PurgeReason): Promise<DeletedTenant & { purge: BegunPurge }> {
    const { purge } = record;
    if (purge) return { ...record, purge };
    const since = timeText(this.#context.clock.now());
    const begun = { ...record, purge: { since, reason, removed: await this.#inventory(record) } };
    await this.#records.put(begun);
    return begun;
  }

  async #inventory({ name, storage = name, brought = [] }: DeletedTenant): Promise<RemovedData> {
    const { databases, store } = this.#context;
    const { hasDatabase, stranded } = await databases.keptData(storage);
    const bytes = hasDatabase ? (await databases.usage([storage])).get(storage)?.bytes : undefined;
    const media = await this.#deletions.mediaOf(storage);
    const { keyOf } = this.#deletions;
    const key = keyOf ? await keyOf(name) : (await store.readSecret(storage))?.signingKey;
    return {
      ...(hasDatabase || stranded
        ? // Its name is the same on whichever server.
          {
            database: {
              name: databases.address({ metadata: { name }, status: { storage } }).name,
              ...(bytes === undefined ? {} : { bytes }),
            },
          }
        : {}),
      ...(media ? { media } : {}),
      ...(key === undefined ? {} : { signingKey: { sha256: createHash("sha256").update(key).digest("hex") } }),
      ...(brought.length === 0 ? {} : { left: brought }),
    };
  }

  /** Deleted before there were records of it, or with a store that was lost. */
  async #found(name: string): Promise<DeletedTenant | undefined> {
    const { databases, store, clock } = this.#context;
    // The data of a tenant that has another name by now is nobody's to purge.
    if (!(await isFree(this.#context, name))) return undefined;
    const secrets = await store.readSecret(name);
    const { hasDatabase, keepsake, stranded } = await databases.keptData(name);
    if (!secrets && !hasDatabase && !keepsake && !stranded) return undefined;
    const now = timeText(clock.now());
    const serverName = secrets?.serverName ?? keepsake?.serverName ?? "";
    const spec = { serverName, release: "", config: "", reclaimPolicy: "Retain" as const };
    return {
      name,
      spec,
      createdAt: "",
      deletedAt: now,
      keptUntil: now,
      managedDatabase: hasDatabase || stranded !== undefined,
    };
  }

  #recordOf(tenant: Tenant, managedDatabase: boolean): DeletedTenant {
    const deletedAt = tenant.metadata.deletionTimestamp ?? timeText(this.#context.clock.now());
    const keptUntil = timeText(Date.parse(deletedAt) + this.#deletions.keepDays * DAY_MS);
    return deletedTenant(tenant, { deletedAt, keptUntil, managedDatabase });
  }

  async #refusePresent(name: string, remedy: string): Promise<void> {
    const present = await this.#context.store.get("Tenant", name);
    if (!present) return;
    const isGoing = present.metadata.deletionTimestamp !== undefined;
    throw new UserError(
      "Conflict",
      isGoing ? `tenant ${name} is still being deleted; try again in a moment` : `there is a tenant ${name}: ${remedy}`,
    );
  }

  #say(name: string, reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type: "Normal", reason, object: `Tenant/${name}`, message });
  }
}
