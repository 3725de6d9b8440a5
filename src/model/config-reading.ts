import { AdminContactSchema } from "./admin-contact.ts";
import { YamlProblem } from "./bounded-yaml.ts";
import type { ConfigMeaning, DatabaseAddress } from "./config-meaning.ts";
import { UserError } from "./errors.ts";
import { furtherHostProblem, MOST_HOSTS } from "./further-hosts.ts";
import { isMapping } from "./mapping.ts";
import { hostOf } from "./names.ts";
import { readSynapseYaml } from "./synapse-yaml.ts";

/** A database that a tenant brings along, as the controller logs in to it. */
export interface OwnDatabase extends DatabaseAddress {
  password: string;
  sslMode: string;
  /** Whom its certificate is verified by, in PEM, where not by the authorities that everybody knows. */
  authorities?: string;
}

/**
 * What the controller reads in a configuration where no shard has read it yet, and for its own logins. What decides is what a shard reports; a
 * configuration that the two read differently is refused (`disagreement`).
 */
export interface ConfigReading {
  database?: OwnDatabase;
  publicBaseUrl?: string;
  /** Further names that lead to it; only as far as they can be names of hosts. */
  hosts?: string[];
  /** Where its users reach who runs it; only as far as it is a URI. */
  adminContact?: string;
  /** Whether it has no media: `enable_media_repo: false`. */
  keepsNoMedia?: true;
}

/** Ways to name a database that leave its place to files, to the environment, or to several servers. */
const ELSEWHERE = ["dsn", "service", "hostaddr", "passfile", "servicefile"];

/** @throws UserError InvalidConfig saying where it is no YAML, or what in `database` cannot be used */
export function readConfig(text: string): ConfigReading {
  const config = parse(text);
  const url = config["public_baseurl"];
  const contact = AdminContactSchema.safeParse(config["admin_contact"]);
  const hosts = furtherHostsIn(config);
  return {
    ...("database" in config ? { database: { ...ownDatabaseIn(config["database"]), ...authoritiesIn(config) } } : {}),
    ...(typeof url === "string" && URL.canParse(url) ? { publicBaseUrl: url } : {}),
    ...(hosts.length > 0 ? { hosts } : {}),
    ...(config["enable_media_repo"] === false ? { keepsNoMedia: true } : {}),
    ...(contact.success ? { adminContact: contact.data } : {}),
  };
}

/** The same, or undefined where it is wrong: for those who cannot do anything about it. */
export function tryReadConfig(text: string): ConfigReading | undefined {
  try {
    return readConfig(text);
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

/** Names in `Host` that lead to a tenant of that server name and URL, and with those further names. */
export function hostsOf(
  serverName: string,
  publicBaseUrl: string | undefined,
  further: readonly string[] = [],
): string[] {
  const hosts = new Set([hostOf(serverName)]);
  if (publicBaseUrl !== undefined) hosts.add(new URL(publicBaseUrl).hostname.toLowerCase());
  return [...new Set([...hosts, ...further])];
}

/** Why a configuration has two meanings, or undefined. */
export function disagreement(reading: ConfigReading, meaning: ConfigMeaning): string | undefined {
  const { database } = reading;
  const same =
    (database === undefined) === (meaning.database === null) &&
    (["host", "port", "name", "user"] as const).every((key) => database?.[key] === meaning.database?.[key]);
  return same ? undefined : "its database is named in a way that can be read differently; write it out in plain YAML";
}

function furtherHostsIn(config: Record<string, unknown>): string[] {
  const { hosts } = isMapping(config["synapse_shards"]) ? config["synapse_shards"] : {};
  if (!Array.isArray(hosts) || hosts.length > MOST_HOSTS) return [];
  return hosts.filter((host): host is string => typeof host === "string" && furtherHostProblem(host) === undefined);
}

/** A shard refuses what is no text. */
function authoritiesIn(config: Record<string, unknown>): { authorities?: string } {
  const { database_authorities: pem } = isMapping(config["synapse_shards"]) ? config["synapse_shards"] : {};
  return typeof pem === "string" && pem !== "" ? { authorities: pem } : {};
}

function parse(text: string): Record<string, unknown> {
  try {
    return readSynapseYaml(text);
  } catch (error) {
    if (!(error instanceof YamlProblem)) throw error;
    throw new UserError("InvalidConfig", `the configuration cannot be read: ${error.message}`, { cause: error });
  }
}

function ownDatabaseIn(database: unknown): OwnDatabase {
  const args = mappingIn(mappingIn(database, "database")["args"], "database.args");
  const elsewhere = ELSEWHERE.find((key) => key in args);
  if (elsewhere !== undefined)
    throw wrong(`database.args.${elsewhere}`, "is not possible; give host, port, user and dbname");
  if ("dbname" in args && "database" in args) throw wrong("database.args", "has both dbname and database");
  const host = textIn(args, "host");
  if (/[,/@\s]/.test(host)) throw wrong("database.args.host", "is not one host name or address");
  return {
    host,
    port: portIn(args["port"]),
    name: textIn(args, "database" in args ? "database" : "dbname"),
    user: textIn(args, "user"),
    password: args["password"] === undefined ? "" : textIn(args, "password"),
    sslMode: args["sslmode"] === undefined ? "prefer" : textIn(args, "sslmode"),
  };
}

function mappingIn(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(where, "is not a mapping");
}

function textIn(args: Record<string, unknown>, key: string): string {
  const value = args[key];
  // psycopg2 writes whole numbers out, and a password may look like one.
  if ((typeof value === "number" && Number.isInteger(value)) || typeof value === "bigint") return String(value);
  if (typeof value === "string" && value !== "") return value;
  throw wrong(`database.args.${key}`, value === undefined ? "is missing" : "is not a text");
}

function portIn(value: unknown): number {
  if (value === undefined) return 5432;
  const port = typeof value === "string" && /^\d{1,5}$/.test(value) ? Number(value) : value;
  if (typeof port === "number" && Number.isInteger(port) && port >= 1 && port <= 65535) return port;
  throw wrong("database.args.port", "is not a port between 1 and 65535");
}

function wrong(where: string, why: string): UserError {
  return new UserError("InvalidConfig", `${where} ${why}`);
}
