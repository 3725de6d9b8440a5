import { tryReadConfig, type OwnDatabase } from "./config-reading.ts";
import type { Tenant } from "./tenant.ts";
import type { TenantSecretData } from "./tenant-secrets.ts";
import type { AssignmentPolicy } from "./tenant-policy.ts";

/** What the platform gives every tenant. */
export interface TenantEnvironment {
  /** The tenant's URL as clients have it. */
  publicBaseUrl: string;
  database: { host: string; port: number; name: string; user: string; sslMode?: string };
  /** Directory of its media, reachable by every shard. */
  mediaPath: string;
  /** Further certificate authorities for federation, as files. */
  federationCaFiles: string[];
  /** Let federation reach addresses of this machine: needed where homeservers are neighbours on it. */
  allowLocalFederation: boolean;
  /** The operator's, if there is one. */
  adminContact?: string | undefined;
  /** What the operator allows it. */
  policy: AssignmentPolicy;
}

/** Our part of homeserver.yaml. The user's part comes after it, and wins key by key; the shard adds what is its own (listeners, paths). */
export function baseHomeserverConfig(
  tenant: Tenant,
  secrets: TenantSecretData,
  where: TenantEnvironment,
): Record<string, unknown> {
  return {
    server_name: tenant.spec.serverName,
    public_baseurl: where.publicBaseUrl,
    database: {
      name: "psycopg2",
      args: {
        host: where.database.host,
        port: where.database.port,
        dbname: where.database.name,
        user: where.database.user,
        password: secrets.databasePassword,
        ...(where.database.sslMode === undefined ? {} : { sslmode: where.database.sslMode }),
        cp_min: 1,
        cp_max: 5,
      },
    },
    media_store_path: where.mediaPath,
    macaroon_secret_key: secrets.macaroonSecretKey,
    form_secret: secrets.formSecret,
    registration_shared_secret: secrets.registrationSharedSecret,
    ...(where.adminContact === undefined ? {} : { admin_contact: where.adminContact }),
    report_stats: false,
    serve_server_wellknown: false,
    // A key server of somebody else's is a choice of the tenant's, not ours.
    trusted_key_servers: [],
    suppress_key_server_warning: true,
    ...(where.federationCaFiles.length > 0 ? { federation_custom_ca_list: where.federationCaFiles } : {}),
    ...(where.allowLocalFederation ? { federation_ip_range_blacklist: [] } : {}),
  };
}

/** The database that a tenant brings along, if its configuration names a usable one. */
export function ownDatabase(config: string): OwnDatabase | undefined {
  return tryReadConfig(config)?.database;
}

/** The tenant's URL for clients: of the configuration in effect, else the one asked for; undefined where it is the platform's. */
export function ownUrlOf({ spec, status }: Pick<Tenant, "spec" | "status">): string | undefined {
  const url = status.inEffect?.meaning.publicBaseUrl ?? tryReadConfig(spec.config)?.publicBaseUrl;
  return url?.replace(/\/$/, "");
}
