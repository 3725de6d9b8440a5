import { PostgresCopies } from "../../../database/copies.ts";
import type { PgPrograms } from "../../../database/pg-programs.ts";
import type { ScratchServer } from "../../../database/scratch-server.ts";
import { DatabaseServers } from "../../../database/servers.ts";
import { UserError } from "../../../model/errors.ts";
import type { Tenant } from "../../../model/tenant.ts";
import type { TenantSecretData } from "../../../model/tenant-secrets.ts";
import type { Bytes, CopyFacts, DatabaseCopies } from "../../../ports/backups.ts";
import type { DatabaseLogin } from "../../../ports/databases.ts";

/** Where there is no server of ours. */
const NONE = DatabaseServers.single({ host: "", port: 5432, user: "", password: "" });

/**
 * Copies where every tenant brings its database along: they are dumped with the tenant's login, and tried in a server of our own that is made for it.
 * There is no place for one beside a tenant's (`OwnDatabases` is how they are restored).
 */
export class BroughtCopies implements DatabaseCopies {
  readonly #programs: PgPrograms;
  readonly #dumps: PostgresCopies;
  readonly #scratch: ScratchServer;

  constructor(programs: PgPrograms, scratch: ScratchServer) {
    this.#programs = programs;
    this.#dumps = new PostgresCopies(NONE, programs);
    this.#scratch = scratch;
  }

  dump<T>(
    tenant: Tenant,
    secrets: TenantSecretData,
    consume: (dump: Bytes, facts: CopyFacts) => Promise<T>,
    signal: AbortSignal,
    options?: { withoutFence?: boolean },
  ): Promise<T> {
    return this.#dumps.dump(tenant, secrets, consume, signal, options);
  }

  dumpOf<T>(
    from: DatabaseLogin,
    consume: (dump: Bytes, facts: CopyFacts & { others: number }) => Promise<T>,
    signal: AbortSignal,
    options?: { withFence?: boolean },
  ): Promise<T> {
    return this.#dumps.dumpOf(from, consume, signal, options);
  }

  rehearse(dump: Bytes, signal: AbortSignal): Promise<CopyFacts> {
    return this.#scratch.use(signal, (admin, within) =>
      new PostgresCopies(DatabaseServers.single(admin), this.#programs).rehearse(dump, within),
    );
  }

  restore(into: DatabaseLogin, dump: Bytes, signal: AbortSignal): Promise<void> {
    return this.#dumps.restore(into, dump, signal);
  }

  async restoreBeside(): Promise<CopyFacts> {
    throw noPlace();
  }

  async fillBeside(): Promise<CopyFacts & { remarks: string[] }> {
    throw noPlace();
  }

  async beside(): Promise<undefined> {
    return undefined;
  }

  async exchange(): Promise<void> {
    throw noPlace();
  }

  async inPlace(): Promise<undefined> {
    return undefined;
  }

  async settle(): Promise<void> {}

  async takeBack(): Promise<void> {
    throw noPlace();
  }

  async hasFormer(): Promise<boolean> {
    return false;
  }

  async forget(): Promise<void> {}

  async clean(): Promise<void> {}
}

function noPlace(): UserError {
  return new UserError(
    "Conflict",
    "this cluster has no database server of its own: tenants bring their databases along",
  );
}
