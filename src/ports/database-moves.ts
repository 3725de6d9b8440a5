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
   * @param epoch the highest that was ever handed out
   * @throws HalfMoved; UserError, StartFailure where nothing has changed
   */
  move(tenant: Tenant, secrets: TenantSecretData, options: { to: string; epoch: number }): Promise<MovedDatabase>;
  /** Removes the database that a move has set aside on a server. Nothing where there is none. @throws UserError, StartFailure */
  forget(tenant: string, server: string): Promise<void>;
}
