import { Client, DatabaseError, escapeIdentifier, escapeLiteral } from "pg";
import { messageOf, UserError, type ErrorCode } from "../model/errors.ts";
import { DatabaseTrouble, type DatabaseLogin, type DatabaseTroubleReason } from "../ports/databases.ts";
import { encryptionOf, refusedCertificate, withoutTls, type Encryption, type Server } from "./encryption.ts";
import { boundMessages } from "./message-bound.ts";

/** A login on a PostgreSQL server. */
export interface Login extends Server {
  user: string;
  password: string;
}

/** A superuser, or a role with CREATEDB and CREATEROLE. */
export interface AdminLogin extends Login {
  /** The database to work from; default `postgres`. */
  database?: string;
}

export interface Bounds {
  /** Milliseconds to connect and log in. */
  connectMs: number;
  /** Milliseconds a statement may take, counted by the server, and by us in case the server is silent. */
  statementMs: number;
  /** It speaks the replication protocol, in that database. */
  isReplication?: boolean;
}

/** Creating a database copies files, which a busy disk can hold up; hence generous. */
export const DEFAULT_BOUNDS: Bounds = { connectMs: 5000, statementMs: 60_000 };

/** Our own count begins later, so that the server's answer, which says more, comes first. */
const SILENCE_MS = 2000;
const END_MS = 1000;
/** Of an answer: nothing that is asked for here is near it, but a tenant's own code may raise an error of any length. */
const MOST_MESSAGE_BYTES = 16 * 1024 ** 2;
const MOST_CHARACTERS = 1_000;

/**
 * Runs `work` on a connection of its own and closes it.
 * @throws UserError Unavailable (server away or full), Unauthorized, NotFound (no such database), Timeout, Environment
 */
export async function withConnection<T>(
  login: Login,
  database: string,
  work: (client: Client) => Promise<T>,
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<T> {
  const ways = encryptionOf(login);
  try {
    return await withClient(login, database, work, bounds, ways[0]);
  } catch (error) {
    if (!(error instanceof EncryptionMismatch)) throw error;
    if (ways[1] === undefined) throw error.cause;
    return await withClient(login, database, work, bounds, ways[1]);
  }
}

/** As `withConnection`; the work ends where the signal is aborted, also in the midst of a long statement. @throws its reason then */
export async function connectedUntil<T>(
  signal: AbortSignal,
  login: DatabaseLogin,
  work: (client: Client) => Promise<T>,
  bounds: Bounds,
): Promise<T> {
  const run = async (client: Client) => {
    const cut = () => void client.end().catch(() => {});
    signal.addEventListener("abort", cut, { once: true });
    try {
      signal.throwIfAborted();
      return await work(client);
    } finally {
      signal.removeEventListener("abort", cut);
    }
  };
  try {
    return await withConnection(login, login.database, run, bounds);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

/**
 * Runs `work` as the administrator. Nothing but the server's own functions is found by name: what somebody else left behind in this database
 * would run with the administrator's rights.
 */
export function asAdmin<T>(admin: AdminLogin, bounds: Bounds, work: (client: Client) => Promise<T>): Promise<T> {
  return withConnection(
    admin,
    admin.database ?? "postgres",
    async (client) => {
      await client.query("SET search_path TO pg_catalog");
      return work(client);
    },
    bounds,
  );
}

/** So values are written, whatever a database's owner has set for it. The other side has to read them so. */
export const VALUES_AS_TEXT = {
  DateStyle: "ISO",
  IntervalStyle: "postgres",
  TimeZone: "UTC",
  extra_float_digits: "3",
  bytea_output: "hex",
  xmlbinary: "base64",
  lc_monetary: "C",
  // What names objects (regclass) names their schema with it.
  search_path: "pg_catalog",
} as const;

/** A peer that is gone without a word is found out by the server. */
const REPLICATION_OPTIONS = Object.entries({ ...VALUES_AS_TEXT, tcp_keepalives_idle: "30" })
  .map(([name, value]) => `-c ${name}=${value}`)
  .join(" ");

/** The server does not want to speak as we tried; nothing was done yet. */
class EncryptionMismatch extends Error {}

async function withClient<T>(
  login: Login,
  database: string,
  work: (client: Client) => Promise<T>,
  bounds: Bounds,
  ssl: Encryption,
): Promise<T> {
  const client = new Client({
    ssl,
    host: login.host,
    port: login.port,
    user: login.user,
    password: login.password,
    database,
    application_name: "synapse-shards",
    connectionTimeoutMillis: bounds.connectMs,
    // A server that is gone without a word is found out, however long a statement may take.
    keepAlive: true,
    statement_timeout: bounds.statementMs,
    query_timeout: bounds.statementMs + SILENCE_MS,
    ...(bounds.isReplication ? { replication: "database", options: REPLICATION_OPTIONS } : {}),
  });
  // A connection that breaks between two queries says so by an event; the next query then fails anyway.
  client.on("error", () => {});
  let isExceeded = false;
  try {
    await client.connect().catch((error: unknown) => {
      if (/does not support SSL/.test(messageOf(error)))
        throw new EncryptionMismatch("the other way", { cause: withoutTls(login) });
      const explained = connectProblem(error, login, database);
      // What pg_hba.conf says to a connection without it, or with it.
      if (/(no|SSL) encryption/.test(messageOf(error)))
        throw new EncryptionMismatch("the other way", { cause: explained });
      throw explained;
    });
    // A stream of changes has a bound that says more.
    if (!bounds.isReplication) boundMessages(client, MOST_MESSAGE_BYTES, () => (isExceeded = true));
    return await work(client);
  } catch (error) {
    if (error instanceof EncryptionMismatch) throw error;
    if (isExceeded) {
      const most = `${MOST_MESSAGE_BYTES / 1024 ** 2} MiB`;
      throw new UserError(
        "Environment",
        `PostgreSQL at ${login.host}:${login.port}, database ${database}: an answer has more than ${most}`,
      );
    }
    throw describeError(error, `${login.host}:${login.port}`, database, login.user);
  } finally {
    await endQuietly(client);
  }
}

async function endQuietly(client: Client): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const bound = new Promise<void>((resolve) => (timer = setTimeout(resolve, END_MS)));
  await Promise.race([client.end().catch(() => {}), bound]);
  clearTimeout(timer);
}

/** What keeps us from a server. */
export function connectProblem(error: unknown, login: Login, database = ""): UserError {
  const where = `${login.host}:${login.port}`;
  const explained = refusedCertificate(error, login) ?? describeError(error, where, database, login.user);
  if (explained instanceof UserError) return explained;
  // No bug of ours: whatever answers there, it is not a server that lets us in.
  return new UserError("Unavailable", `PostgreSQL at ${where} cannot be connected to: ${reasonOf(error)}`, {
    cause: error,
  });
}

function describeError(error: unknown, where: string, database: string, user: string): unknown {
  if (error instanceof UserError) return error;
  if (error instanceof DatabaseError) shorten(error);
  const code = (error as { code?: unknown }).code;
  const state = typeof code === "string" ? code : "";
  const say = (kind: ErrorCode, words: string) => new UserError(kind, words, { cause: error });
  const reason = reasonOf(error);
  if (state === "28P01" || state.startsWith("28"))
    return say("Unauthorized", `PostgreSQL at ${where} refuses the login of ${user}: ${reason}`);
  if (state === "42501")
    return say("Unauthorized", `PostgreSQL at ${where} does not allow ${user} this in database ${database}: ${reason}`);
  if (state === "3D000") return say("NotFound", `PostgreSQL at ${where} has no database ${database}`);
  if (state === "57014") return say("Timeout", `PostgreSQL at ${where} took too long: ${reason}`);
  const trouble = TROUBLES.find(({ states }) => states.test(state));
  if (trouble)
    return new DatabaseTrouble(trouble.reason, `PostgreSQL at ${where} ${trouble.words}: ${reason}`, { cause: error });
  if (error instanceof DatabaseError && !isAway(state))
    return say("Environment", `PostgreSQL at ${where}, database ${database}: ${reason}`);
  if (isAway(state) || error instanceof AggregateError || isClientSideFailure(reason))
    return say("Unavailable", `PostgreSQL at ${where} does not answer: ${reason}`);
  return error;
}

/** The first that fits. */
const TROUBLES: readonly { states: RegExp; reason: DatabaseTroubleReason; words: string }[] = [
  { states: /^53100$/, reason: "DatabaseFull", words: "has a full disk" },
  { states: /^53/, reason: "DatabaseOverloaded", words: "has no connection, memory or other resource left" },
  { states: /^25006$/, reason: "DatabaseReadOnly", words: "takes no writes: a standby, or read-only by its settings" },
];

/** Connection failures, shutting down, starting up, a database that admits nobody; and the operating system's codes. */
function isAway(state: string): boolean {
  return /^(08|57P0[1-5]$|55000$)/.test(state) || /^E[A-Z_]{3,}$/.test(state);
}

/** The words of pg's own failures, which have no code. */
function isClientSideFailure(reason: string): boolean {
  return /timeout|Connection terminated|not queryable|connection error/i.test(reason);
}

/** What a tenant's own code raises comes with it; logs have all of an error. */
function shorten(error: DatabaseError): void {
  if (error.message.length > MOST_CHARACTERS) {
    error.message = cut(error.message);
    error.stack = `${error.name}: ${error.message}`;
  }
  for (const part of ["detail", "hint", "where", "internalQuery"] as const) {
    const words = error[part];
    if (words !== undefined && words.length > MOST_CHARACTERS) error[part] = cut(words);
  }
}

function cut(words: string): string {
  return `${words.slice(0, MOST_CHARACTERS)} …`;
}

function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return messageOf(error.errors[0]);
  return messageOf(error);
}

/** Quotes a name for use in a statement. */
export function identifier(name: string): string {
  return escapeIdentifier(name);
}

/** What a table or a sequence is called in a statement, whatever the search_path is. */
export function placeOf({ schema, name }: { schema: string; name: string }): string {
  return `${identifier(schema)}.${identifier(name)}`;
}

export function literal(text: string): string {
  return escapeLiteral(text);
}
