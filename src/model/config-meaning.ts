import type { TenantSecretData } from "./tenant-secrets.ts";

/** Where a PostgreSQL database is, and who logs in to it. */
export interface DatabaseAddress {
  host: string;
  port: number;
  name: string;
  user: string;
}

/** What a configuration means, as the checker of a shard reads it. Nothing else decides (docs/control-api.md, *Meaning*). */
export interface ConfigMeaning {
  /** The database it brings along; null where it has the platform's. */
  database: DatabaseAddress | null;
  /** Names in `Host` that lead to the tenant: lower case, without ports, its server name's host first. */
  hosts: string[];
  publicBaseUrl: string;
  /** The S3 bucket of its media; null where it has none. */
  bucket: string | null;
  /** An authentication service keeps its accounts; absent where a shard of an earlier version has read it. */
  authenticationService?: boolean | undefined;
}

/**
 * The configuration a tenant last ran with. Moves, drains and upgrades go on with it while a newer one is refused. It may hold passwords, so
 * stores keep it like a secret.
 */
export interface ConfigInEffect {
  /** As `status.inEffect.hash`. */
  hash: string;
  /** The user's part of homeserver.yaml, as given. */
  config: string;
  /** The keys that it was started with. Absent where an earlier version of this project kept it. */
  secrets?: TenantSecretData;
}
