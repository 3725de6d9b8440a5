// A leader reads the configurations of all tenants at its start, and `yaml`, which tells more of mistakes, takes six times as long.
import { loadAll, YAMLException } from "js-yaml";
import type { Tenant } from "./tenant.ts";
import type { TenantSecretData } from "./tenant-secrets.ts";
import { hostOf } from "./names.ts";

/** What the platform gives every tenant. */
export interface TenantEnvironment {
  /** The tenant's URL as clients have it. */
  publicBaseUrl: string;
  database: { host: string; port: number; name: string; user: string };
  /** Directory of its media, reachable by every shard. */
  mediaPath: string;
  /** Further certificate authorities for federation, as files. */
  federationCaFiles: string[];
  /** Let federation reach addresses of this machine: needed where homeservers are neighbours on it. */
  allowLocalFederation: boolean;
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
        cp_min: 1,
        cp_max: 5,
      },
    },
    media_store_path: where.mediaPath,
    macaroon_secret_key: secrets.macaroonSecretKey,
    form_secret: secrets.formSecret,
    registration_shared_secret: secrets.registrationSharedSecret,
    report_stats: false,
    serve_server_wellknown: false,
    // A key server of somebody else's is a choice of the tenant's, not ours.
    trusted_key_servers: [],
    suppress_key_server_warning: true,
    ...(where.federationCaFiles.length > 0 ? { federation_custom_ca_list: where.federationCaFiles } : {}),
    ...(where.allowLocalFederation ? { federation_ip_range_blacklist: [] } : {}),
  };
}

/** The user's part as an object, or undefined where it is not a YAML mapping (the shard will say what is wrong with it). */
export function parseOverrides(text: string): Record<string, unknown> | undefined {
  let documents: unknown[];
  try {
    // Of a key that is given twice the last counts, as for Synapse.
    documents = loadAll(text, { json: true });
  } catch (error) {
    if (error instanceof YAMLException) return undefined;
    throw error;
  }
  if (documents.length > 1) return undefined;
  const value = documents[0] ?? {};
  return typeof value === "object" && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
}

export interface OwnDatabase {
  host: string;
  port: number;
  name: string;
  user: string;
  password: string;
  sslMode: string;
}

/** A database of the user's own, if the overrides name one. */
export function ownDatabase(text: string): OwnDatabase | undefined {
  return databaseIn(parseOverrides(text));
}

/** The same of parsed overrides. */
export function databaseIn(overrides: Record<string, unknown> | undefined): OwnDatabase | undefined {
  const database = overrides?.["database"];
  if (typeof database !== "object" || database === null) return undefined;
  const args = (database as Record<string, unknown>)["args"];
  const given = typeof args === "object" && args !== null ? (args as Record<string, unknown>) : {};
  return {
    host: String(given["host"] ?? "localhost"),
    port: Number(given["port"] ?? 5432),
    name: String(given["dbname"] ?? given["database"] ?? ""),
    user: String(given["user"] ?? ""),
    password: String(given["password"] ?? ""),
    sslMode: String(given["sslmode"] ?? "prefer"),
  };
}

/** Names in `Host` that lead to the tenant: its server name's host, and that of its public base URL. */
export function hostsIn(serverName: string, overrides: Record<string, unknown> | undefined): string[] {
  const hosts = new Set([hostOf(serverName)]);
  const url = overrides?.["public_baseurl"];
  if (typeof url === "string" && URL.canParse(url)) hosts.add(new URL(url).hostname.toLowerCase());
  return [...hosts];
}
