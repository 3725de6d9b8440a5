import type { Readable } from "node:stream";
import { UserError } from "../model/errors.ts";
import type { TenantCounts } from "../model/backup.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";
import type { DatabaseLogin } from "./databases.ts";

export type Bytes = AsyncIterable<Uint8Array>;

/**
 * Where backups are kept. The contract, which every adapter passes (tests/ports/backup-target-contract.ts):
 * - What `put` has answered survives a crash. Until then nothing of it is seen under its key, also where its source fails half-way.
 * - Keys are of `[A-Za-z0-9._/-]`, and none names anything outside of the target.
 * - What is wrong with the place is a UserError that names it: Unavailable (away, full), Unauthorized, Environment.
 */
export interface BackupTarget {
  /** For people, without secrets. */
  readonly place: string;
  put(key: string, content: Bytes | Uint8Array): Promise<void>;
  /** @throws UserError NotFound */
  get(key: string): Promise<Readable>;
  /** All keys that begin so, in any order. */
  list(prefix: string): AsyncIterable<{ key: string; bytes: number; modifiedAt: number }>;
  /** Nothing happens if it is not there. */
  remove(key: string): Promise<void>;
}

/** Seals what only the holder of a key may read. */
export interface Sealer {
  seal(recipient: string, content: Uint8Array): Promise<Uint8Array>;
  /** @param identity the private key of the recipient, `AGE-SECRET-KEY-…` @throws UserError InvalidInput */
  open(identity: string, sealed: Uint8Array): Promise<Uint8Array>;
}

/** Whose schema a copy has, and how many of what. */
export interface CopyFacts {
  counts: TenantCounts;
  schemaVersion: number | undefined;
  schemaCompatVersion: number | undefined;
}

/** There is no copy that could take a database's place; nothing has changed. */
export class NoCopy extends UserError {
  constructor(message: string) {
    super("NotFound", message);
    this.name = "NoCopy";
  }
}

/** What the database is made of, in place of a backup, that `takeBack` has put beside. */
export const FORMER = "that was there before";

/** Copies of the databases of our own server: into a dump, out of a dump beside the one in use, and into its place. */
export interface DatabaseCopies {
  /**
   * Reads a whole database as of one moment, as the tenant's own role and without disturbing it.
   * @param consume gets the dump as it is made; where the dump fails, so does its stream
   * @param options withoutFence: for where no shard is
   */
  dump<T>(
    tenant: Tenant,
    secrets: TenantSecretData,
    consume: (dump: Bytes, facts: CopyFacts) => Promise<T>,
    signal: AbortSignal,
    options?: { withoutFence?: boolean },
  ): Promise<T>;
  /**
   * Makes a database out of a dump, and leaves nothing of it behind.
   * @throws UserError InvalidInput where the dump is damaged
   */
  rehearse(dump: Bytes, signal: AbortSignal): Promise<CopyFacts>;
  /**
   * Makes a database out of a dump beside the tenant's own, with the tenant's role (made if need be), and ready to take the place: one-time keys
   * are given out no more, and device lists are sent again. Replaces what was there beside it.
   */
  restoreBeside(
    tenant: string,
    options: { password: string; backup: string },
    dump: Bytes,
    signal: AbortSignal,
  ): Promise<CopyFacts>;
  /**
   * The same out of what `fill` brings into the empty database, which another server has written; it is looked through, and set right where that
   * is possible.
   * @returns also what is worth knowing, a sentence each @throws UserError InvalidInput where it is no homeserver's
   */
  fillBeside(
    tenant: string,
    options: { password: string; backup: string },
    fill: (into: DatabaseLogin) => Promise<void>,
  ): Promise<CopyFacts & { remarks: string[] }>;
  /** Brings a dump into an empty database. @throws UserError InvalidInput where the dump is damaged */
  restore(into: DatabaseLogin, dump: Bytes, signal: AbortSignal): Promise<void>;
  /** As `dump`, of a database anywhere, without a fence of ours unless asked for. `others`: how many others are connected to it. */
  dumpOf<T>(
    from: DatabaseLogin,
    consume: (dump: Bytes, facts: CopyFacts & { others: number }) => Promise<T>,
    signal: AbortSignal,
    options?: { withFence?: boolean },
  ): Promise<T>;
  /** Which backup the complete database beside the tenant's own is of. */
  beside(tenant: string): Promise<string | undefined>;
  /**
   * Puts the database beside the tenant's own into its place, and keeps the former one. Nobody that had the former one gets at the new one. Can be
   * repeated after a crash anywhere, until `settle`.
   * @param options epoch: the highest that was ever handed out; backup: what the database beside was made of
   * @throws NoCopy where none is beside, and the one in its place was not made of that either
   */
  exchange(tenant: string, options: { password: string; epoch: number; backup: string }): Promise<void>;
  /** The backup that the database in the tenant's place was made of, until `settle`. */
  inPlace(tenant: string): Promise<string | undefined>;
  /** Forgets which backup the database in the tenant's place was made of. */
  settle(tenant: string): Promise<void>;
  /** Puts the database that was exchanged last beside the tenant's own. @throws UserError NotFound */
  takeBack(tenant: string): Promise<void>;
  /** Whether the database that was exchanged last is kept. */
  hasFormer(tenant: string): Promise<boolean>;
  /** Removes the database that was exchanged last, and one beside. */
  forget(tenant: string): Promise<void>;
  /** What a rehearsal left behind whose process ended. */
  clean(): Promise<void>;
}

export interface MediaFile {
  /** Below the tenant's media directory, such as `local_content/ab/cd/efgh`. */
  path: string;
  bytes: number;
  /** Milliseconds. */
  modifiedAt: number;
}

/** A tenant's media are where only its own process gets at them, or nobody at the time. The message says why. */
export class MediaOutOfReach extends UserError {
  constructor(message: string, options?: ErrorOptions) {
    super("Unavailable", message, options);
    this.name = "MediaOutOfReach";
  }
}

/** Tenants' media. What can be made again, thumbnails and previews of URLs, is not among them. */
export interface TenantMediaFiles {
  /** @param signal ends it, here and below, where it may take long @throws MediaOutOfReach */
  list(tenant: string, signal?: AbortSignal): AsyncIterable<MediaFile>;
  /** @returns undefined where it is gone by now @throws MediaOutOfReach, also while it is read */
  open(tenant: string, path: string, signal?: AbortSignal): Promise<Readable | undefined>;
  has(tenant: string, file: Pick<MediaFile, "path" | "bytes">, signal?: AbortSignal): Promise<boolean>;
  /** Keeps a file until `admitStaged`; what is there of it already is replaced. @throws UserError */
  stage(tenant: string, path: string, content: Bytes, signal?: AbortSignal): Promise<void>;
  /** Whether a file was staged, whole. */
  hasStaged(tenant: string, file: Pick<MediaFile, "path" | "bytes">): Promise<boolean>;
  /** What was staged. */
  openStaged(tenant: string, path: string): Promise<Readable>;
  /** Gives the tenant the staged files that it does not have, while nobody runs it. */
  admitStaged(tenant: string): Promise<void>;
}

/** Of a restore into the database that a tenant brings along. */
export interface OwnRestore {
  /** Tells that it was done. */
  id: string;
  /** A new one: whoever had the database has none any more. */
  epoch: number;
}

/**
 * Databases that tenants bring along, for which there is their own login alone, and therefore no second database: a backup goes into the one that is
 * there, and what was there is kept in it, in a schema beside. Each change is one transaction, so that there is never a half of anything.
 */
export interface OwnDatabases {
  /**
   * Puts what a dump has in the place of what the database has, while nobody runs the tenant; whoever still does is shut out. Made fit to be taken into
   * use, as by `restoreBeside`.
   * @param check is told what there is before it is kept
   * @param signal ends it @throws UserError, also of `check`, and the signal's reason; nothing has changed then
   */
  replace(
    tenant: Tenant,
    secrets: TenantSecretData,
    restore: OwnRestore,
    dump: Bytes,
    check: (facts: CopyFacts) => void,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Puts what was there before into its place again, and keeps what is there now. @throws UserError NotFound where nothing is kept */
  takeBack(tenant: Tenant, secrets: TenantSecretData, restore: OwnRestore, signal?: AbortSignal): Promise<void>;
  /** The id of the restore that was the last one; undefined where nothing from before one is kept. */
  last(tenant: Tenant, secrets: TenantSecretData): Promise<string | undefined>;
  /** Removes what was there before. */
  forget(tenant: Tenant, secrets: TenantSecretData): Promise<void>;
}

export interface BackupMeans {
  target: BackupTarget;
  sealer: Sealer;
  copies: DatabaseCopies;
  media: TenantMediaFiles;
}
