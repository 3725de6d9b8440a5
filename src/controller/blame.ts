import { messageOf, StartFailure, UserError, type ErrorCode } from "../model/errors.ts";
import { DatabaseTrouble } from "../ports/databases.ts";
import { PreparerError } from "../ports/preparers.ts";
import { ShardRefusal } from "../ports/shard-control.ts";

/**
 * Who caused an error. A failure belongs to the tenant only where the tenant, its configuration or its release is what has to change:
 * only then does it count (`Failed`, `RolledBack`, `moveFailures`, failures of a rollout). Everything else is the infrastructure's: it is
 * retried, and held against nobody.
 */
export type Blame = "tenant" | "infrastructure";

/** Refusals of shards and preparers that say nothing of the tenant: docs/control-api.md. */
const INFRASTRUCTURE: ReadonlySet<string> = new Set([
  "DatabaseUnreachable",
  "DatabaseFull",
  "DatabaseOverloaded",
  "DatabaseReadOnly",
  "PortInUse",
  "Fenced",
  "StaleEpoch",
  "AlreadyRunning",
  "ShuttingDown",
  "TooManyPreparers",
  "NotReady",
  "NotFound",
  "Unauthorized",
  "PreparerEnded",
]);

/** What the controller's own parts refuse on account of the tenant or its release. */
const TENANTS_OWN: ReadonlySet<ErrorCode> = new Set([
  "InvalidConfig",
  "UnknownRelease",
  "UnsupportedRelease",
  "SchemaTooNew",
]);

/** @param bringsDatabase its database is its owner's: whether that answers is the owner's concern */
export function blameFor(error: unknown, bringsDatabase: boolean): Blame {
  const code = codeOf(error);
  if (code === "DatabaseUnreachable" && bringsDatabase) return "tenant";
  if (error instanceof StartFailure || error instanceof PreparerError)
    return INFRASTRUCTURE.has(error instanceof StartFailure ? error.reason : error.code) ? "infrastructure" : "tenant";
  if (error instanceof ShardRefusal)
    return error.status >= 500 || error.status === 429 || INFRASTRUCTURE.has(error.code) ? "infrastructure" : "tenant";
  if (error instanceof UserError) return TENANTS_OWN.has(error.code) ? "tenant" : "infrastructure";
  return "infrastructure";
}

/** What keeps a tenant from starting without being its fault: retried, shown, and held against nobody. */
export class Postponement extends Error {
  readonly reason: string;
  constructor(reason: string, cause: unknown) {
    super(messageOf(cause), { cause });
    this.name = "Postponement";
    this.reason = reason;
  }
}

/**
 * What an error is for its tenant: its own failure, or a postponement. What is no refusal of anybody's (a bug, a write that was overtaken)
 * is handed back as it is.
 */
export function judged(error: unknown, bringsDatabase: boolean): unknown {
  const code = codeOf(error);
  if (code === undefined) return error;
  if (blameFor(error, bringsDatabase) === "infrastructure") return new Postponement(code, error);
  return error instanceof StartFailure ? error : new StartFailure(code, messageOf(error), { cause: error });
}

function codeOf(error: unknown): string | undefined {
  if (error instanceof StartFailure || error instanceof DatabaseTrouble) return error.reason;
  const isOurs = error instanceof PreparerError || error instanceof ShardRefusal || error instanceof UserError;
  return isOurs ? error.code : undefined;
}
