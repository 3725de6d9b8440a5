import type { ServerLoad } from "../model/database-servers.ts";
import { UserError } from "../model/errors.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";

export interface MovedDatabase {
  tables: number;
  rows: number;
  seconds: number;
}

/** The former database is set aside already, and neither the new one could be put into its place nor the former one put back. To be repeated. */
export class HalfMoved extends UserError {
  constructor(message: string, options?: ErrorOptions) {
    super("Unavailable", message, options);
    this.name = "HalfMoved";
  }
}

/** A copy that is made while the tenant runs is not there any more, or has come to nothing: nothing has changed, and it is to be made again. */
export class NotFollowed extends UserError {
  constructor(message: string, options?: ErrorOptions) {
    super("Unavailable", message, options);
    this.name = "NotFollowed";
  }
}

/** A copy cannot be begun yet for what is not its fault: it is to be asked for again. */
export class CopyPostponed extends UserError {
  constructor(message: string) {
    super("Unavailable", message);
    this.name = "CopyPostponed";
  }
}

/** How far a copy is that is made while the tenant runs. */
export interface CopyProgress {
  step: "Copying" | "Following";
  bytes: number;
  totalBytes: number;
  /** Of the log, while it follows. */
  behindBytes?: number;
}

/** Databases of tenants on their way between servers of ours. */
export interface DatabaseMoves {
  /** Servers, and how many databases of tenants each has. @throws UserError Unavailable */
  servers(): Promise<ServerLoad[]>;
  /** Bytes of a tenant's database. @throws UserError */
  bytes(tenant: Tenant): Promise<number>;
  /**
   * Copies a tenant's database to another server, checks that nothing is missing, and exchanges the two, while nobody runs the tenant: who does is
   * shut out. The former database is set aside on its server, where nobody can enter it. Can be repeated after a crash anywhere; the tenant's record
   * has to name the former server until it has returned.
   * @param options.epoch the highest that was ever handed out
   * @param options.online with the copy that follows it (`follow`), or not at all
   * @throws HalfMoved; NotFollowed; UserError, StartFailure where nothing has changed
   */
  move(
    tenant: Tenant,
    secrets: TenantSecretData,
    options: { to: string; epoch: number; online?: boolean },
  ): Promise<MovedDatabase>;
  /**
   * Why it cannot be copied while its tenant runs, in words; undefined where it can.
   * @returns isPassing: it is only to be waited for @throws UserError, StartFailure
   */
  whyNotOnline(
    tenant: Tenant,
    secrets: TenantSecretData,
    to: string,
  ): Promise<{ words: string; isPassing: boolean } | undefined>;
  /**
   * Copies it while its tenant runs, from the beginning, and goes on copying what is written, in this process alone. Resolves when the copy follows
   * so closely that the switch is short: `move` makes that, `leave` ends it.
   * @param options.signal ends it as well, at any time; not begun where it is aborted already
   * @throws CopyPostponed; UserError, StartFailure where it comes to nothing: then nothing of it is left
   */
  follow(
    tenant: Tenant,
    secrets: TenantSecretData,
    options: { to: string; onProgress: (progress: CopyProgress) => void; signal: AbortSignal },
  ): Promise<void>;
  /**
   * Ends the copy that follows a tenant's database, and removes it and what it needs in the database. Nothing where there is none; resolves when one
   * that is being left already has been left. @throws UserError
   */
  leave(storage: string): Promise<void>;
  /**
   * Removes what copies that a crash has ended have left on the servers. None is under way, but for those of this process.
   * @param tenants that there are @throws UserError, StartFailure where a server is away: it is to be repeated
   */
  cleanCopies(tenants: Iterable<Tenant>, secretsOf: (storage: string) => Promise<TenantSecretData>): Promise<void>;
  /** Removes the database that a move has set aside on a server. Nothing where there is none. @throws UserError, StartFailure */
  forget(tenant: string, server: string): Promise<void>;
}
