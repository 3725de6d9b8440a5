import { z } from "zod";

/** A preparer (docs/control-api.md) that has imported its release, wherever it runs. Takes one command at a time. Close it in any case. */
export interface WarmPreparer {
  /** Makes the whole schema in an empty database. @throws UserError, PreparerError */
  template(database: PreparerDatabase): Promise<PreparerResult>;
  /** Claims the fence for a shard, then brings the schema up to its release. @throws UserError, PreparerError */
  migrate(command: MigrateCommand): Promise<PreparerResult>;
  /** Ends it. Idempotent. */
  close(): Promise<void>;
}

/** Where preparers come from. */
export interface Preparers {
  /** @param commandMs bounds a command @throws UserError, PreparerError */
  start(release: string, commandMs?: number): Promise<WarmPreparer>;
}

/** A failure that the preparer itself reported; `code` is one of docs/control-api.md. */
export class PreparerError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.name = "PreparerError";
    this.code = code;
  }
}

export interface PreparerFacts {
  release: string;
  schemaVersion: number;
  schemaCompatVersion: number;
}

export interface PreparerResult {
  seconds?: number;
  /** Schema versions before and after; `from` is null in an empty database. */
  from?: number | null;
  to?: number;
}

export interface MigrateCommand {
  name: string;
  shard: string;
  instance: string;
  assignment: unknown;
}

/** psycopg2's words for a connection, as the preparer takes them. */
export interface PreparerDatabase {
  host: string;
  port: number;
  user: string;
  password: string;
  dbname: string;
  sslmode?: string;
  options?: string;
}

/** What a preparer says, a line each; docs/control-api.md. */
export const PreparerEventSchema = z.discriminatedUnion("event", [
  z.object({
    event: z.literal("ready"),
    release: z.string(),
    schemaVersion: z.int(),
    schemaCompatVersion: z.int(),
  }),
  z.object({
    event: z.literal("done"),
    seconds: z.number().optional(),
    from: z.number().nullish(),
    to: z.number().optional(),
  }),
  z.object({ event: z.literal("error"), code: z.string(), message: z.string() }),
]);
export type PreparerEvent = z.infer<typeof PreparerEventSchema>;
