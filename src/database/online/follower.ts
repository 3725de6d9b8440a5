import type pg from "pg";
import { setTimeout as sleep } from "node:timers/promises";
import { mebibytes } from "../../model/bytes.ts";
import { UserError } from "../../model/errors.ts";
import type { CopyProgress } from "../../ports/database-moves.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import { asAdmin, DEFAULT_BOUNDS, identifier, withConnection, type AdminLogin, type Bounds } from "../connection.ts";
import { emptyBeside, lockedOn, readyBeside, SNAPSHOT_BOUNDS } from "../copies.ts";
import { fenceAgainstAll, hasFence, raiseEpoch } from "../fence.ts";
import { MOVED_HERE, streamName } from "../names.ts";
import { pgDump, pgRestore, type PgPrograms } from "../pg-programs.ts";
import { ChangeStream, positionOf } from "./change-stream.ts";
import { closeSource, openSource, resetCopiedIdentities } from "./source.ts";
import { Statements, type RowCounts, type Statement } from "./statements.ts";
import { copySequences, countRows, otherCounts, placesIn, schemaHash, smallPlacesIn } from "./tables.ts";

/** As long as a stream may last; a timer holds no more. */
const STREAM_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 20 * 86_400_000, isReplication: true };
const APPLY_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 600_000 };
/** A transaction of the copy: large enough that its commit does not count. */
const MOST_STATEMENTS = 500;
const LOOK_MS = 2_000;
const WAIT_MS = 1_000;
const POLL_MS = 20;
/** The copy follows closely where what was written until then is there so soon. */
const CLOSE_MS = 1_000;
/** Longer than what is left where it follows closely; gateways hold requests for 30 seconds. */
const SWITCH_MS = 20_000;
/** What the server may keep of its log for us: more would fill its disk. */
const MOST_LOG_BYTES = 8 * 1024 ** 3;
/** Tables as the tenant sees them are in the way of what was decided already: triggers, and the order of what refers to each other. */
const WITHOUT_TRIGGERS = "session_replication_role = replica";

export type FollowStage = "opened" | "slot" | "copied" | "following" | "fenced" | "caughtUp" | "closed";

export interface FollowerParts {
  tenant: string;
  source: AdminLogin;
  target: AdminLogin;
  former: DatabaseLogin;
  programs: PgPrograms;
  onProgress: (progress: CopyProgress) => void;
  /** Told after each stage: a test ends the process there. */
  reached?: (stage: FollowStage) => void;
}

/**
 * Copies a database to another server while its tenant writes to it, and then follows what is written, until it is told to switch.
 *
 * Both servers are spoken to by this process alone, so neither has to reach the other. The copy is made of the snapshot with which the slot
 * begins, by the tenant's own role; changes are made again by that role too. Nothing is resumed: a copy that breaks off is begun again, so nothing
 * can be applied twice.
 */
export class Follower {
  readonly #parts: FollowerParts;
  readonly #ending = new AbortController();
  readonly #ready: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #ended: Promise<void>;
  #failure: unknown;
  #stream: ChangeStream | undefined;
  #applied = 0n;
  #counts: RowCounts = new Map();
  #schema = "";
  #copy: DatabaseLogin | undefined;

  constructor(parts: FollowerParts) {
    this.#parts = parts;
    this.#ready.promise.catch(() => {});
    this.#ended = this.#run()
      .catch((error: unknown) => void (this.#failure ??= error))
      .then(() => this.#ready.reject(this.#failure ?? new UserError("Unavailable", "the copy was ended")));
  }

  /** Resolves when the copy follows closely. @throws what it has failed of */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Why it came to nothing; undefined while it has not. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Ends it, and removes what it has made on the source. */
  async end(): Promise<void> {
    this.#ending.abort(new UserError("Unavailable", "the copy was ended"));
    this.#stream?.end();
    await this.#ended;
    await this.#close();
  }

  /**
   * Shuts out whoever has the database, takes over the last that was written, and makes the copy ready to take its place.
   * @returns what is in it @throws UserError where the database stays where it is
   */
  async finish(epoch: number): Promise<{ tables: number; rows: number }> {
    const { former, target, tenant } = this.#parts;
    const copy = this.#copy;
    if (!copy || this.#failure) throw this.#failure ?? new UserError("Unavailable", "the copy has not begun");
    await fenceAgainstAll(former, epoch, DEFAULT_BOUNDS);
    this.#reached("fenced");
    await withConnection(
      former,
      former.database,
      async (from) => {
        await this.#catchUp(await endOfLog(from), SWITCH_MS);
        if ((await schemaHash(from)) !== this.#schema) throw changedSchema();
        await withConnection(
          copy,
          copy.database,
          async (to) => {
            await copySequences(from, to);
            await this.#compare(from, to);
            // Its commit also flushes what was written without waiting for that.
            if (await hasFence(to)) await raiseEpoch(to, epoch);
          },
          APPLY_BOUNDS,
        );
      },
      APPLY_BOUNDS,
    );
    this.#reached("caughtUp");
    await this.end();
    this.#reached("closed");
    await lockedOn(target, tenant, (client) => readyBeside(client, tenant, `${MOVED_HERE}${former.host}`));
    const rows = [...this.#counts.values()].reduce((sum, count) => sum + count, 0n);
    return { tables: this.#counts.size, rows: Number(rows) };
  }

  async #run(): Promise<void> {
    const { source, target, tenant, former } = this.#parts;
    const stream = await openSource(source, tenant, former);
    this.#reached("opened");
    this.#ending.signal.throwIfAborted();
    const copy = await lockedOn(target, tenant, (client) => emptyBeside(client, target, tenant, former.password));
    const watch = this.#watch(copy.database);
    try {
      await withConnection(stream, stream.database, (client) => this.#streamTo(client, copy), STREAM_BOUNDS);
    } finally {
      this.#ending.abort(new UserError("Unavailable", "the copy was ended"));
      await watch;
    }
  }

  async #streamTo(client: pg.Client, copy: DatabaseLogin): Promise<void> {
    const { tenant, source } = this.#parts;
    const name = streamName(tenant);
    const stream = new ChangeStream(client);
    this.#stream = stream;
    try {
      const snapshot = await stream.open(name);
      this.#reached("slot");
      await this.#copyTables(snapshot, copy);
      await this.#prepareCopy(copy);
      this.#reached("copied");
      this.#ending.signal.throwIfAborted();
      stream.start(name, name);
      await withConnection(
        copy,
        copy.database,
        async (to) => {
          this.#copy = copy;
          // Nothing of it is used that is not whole: it is flushed when it is made ready.
          await to.query("SET synchronous_commit = off");
          await to.query("SET search_path TO pg_catalog");
          void this.#becomeClose(source);
          await this.#follow(stream, to);
        },
        APPLY_BOUNDS,
      );
    } finally {
      stream.end();
    }
  }

  /** Fills the copy with what the database is at a snapshot. */
  async #copyTables(snapshot: string, copy: DatabaseLogin): Promise<void> {
    const { former, programs } = this.#parts;
    const { signal } = this.#ending;
    await this.#connected(
      former,
      async (client) => {
        await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        await client.query(`SET TRANSACTION SNAPSHOT '${snapshot.replaceAll("'", "")}'`);
        this.#schema = await schemaHash(client);
        // Tables that a crash empties are empty in the copy as well.
        const more = ["--compress=0", "--no-publications", "--no-subscriptions", "--no-unlogged-table-data"];
        await pgRestore(programs, copy, pgDump(programs, former, snapshot, signal, more), signal);
        this.#counts = await countRows(client, await placesIn(client));
      },
      SNAPSHOT_BOUNDS,
    );
  }

  async #prepareCopy(copy: DatabaseLogin): Promise<void> {
    const { former, target, tenant } = this.#parts;
    await this.#connected(
      copy,
      async (client) => {
        const different = otherCounts(this.#counts, await countRows(client, [...this.#counts.keys()]));
        if (different.length > 0) throw differentCopy(different);
        await withConnection(former, former.database, (from) =>
          resetCopiedIdentities(from, client, streamName(tenant)),
        );
        // Without it, the first queries after the switch would be planned for empty tables.
        await client.query("ANALYZE");
      },
      SNAPSHOT_BOUNDS,
    );
    const where = `ROLE ${identifier(copy.user)} IN DATABASE ${identifier(copy.database)}`;
    await asAdmin(target, DEFAULT_BOUNDS, (client) => client.query(`ALTER ${where} SET ${WITHOUT_TRIGGERS}`));
  }

  async #follow(stream: ChangeStream, to: pg.Client): Promise<void> {
    const statements = new Statements(this.#counts);
    for (;;) {
      const { messages, position } = await stream.next(WAIT_MS);
      for (const message of messages) statements.add(message);
      const made = statements.take();
      for (let at = 0; at < made.length; at += MOST_STATEMENTS) await apply(to, made.slice(at, at + MOST_STATEMENTS));
      this.#applied = position;
      stream.applied(position);
    }
  }

  /** Says when what was written until a moment is there soon after it. */
  async #becomeClose(source: AdminLogin): Promise<void> {
    try {
      for (;;) {
        const asked = performance.now();
        await this.#catchUp(await asAdmin(source, DEFAULT_BOUNDS, endOfLog), 24 * 3_600_000);
        if (performance.now() - asked < CLOSE_MS) break;
      }
      this.#reached("following");
      this.#ready.resolve();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** @throws UserError Unavailable where it takes longer; what the copy has failed of */
  async #catchUp(position: bigint, withinMs: number): Promise<void> {
    const deadline = performance.now() + withinMs;
    while (this.#applied < position) {
      if (this.#failure) throw this.#failure;
      this.#ending.signal.throwIfAborted();
      if (performance.now() > deadline) {
        const behind = mebibytes(Number(position - this.#applied));
        throw new UserError("Unavailable", `the copy is ${behind} of the log behind after ${withinMs / 1000} seconds`);
      }
      this.#stream?.ask();
      await sleep(POLL_MS);
    }
  }

  async #compare(from: pg.Client, to: pg.Client): Promise<void> {
    const places = await smallPlacesIn(from);
    const [expected, found] = await Promise.all([countRows(from, places), countRows(to, places)]);
    // What was counted with each change is compared as well: it stands for tables that are too large to be counted now.
    const different = [...otherCounts(expected, found), ...otherCounts(this.#counts, expected)];
    if (different.length > 0) throw differentCopy(different);
  }

  /** Looks how far it is, and gives up before the log that is kept for it fills the disk. */
  async #watch(copy: string): Promise<void> {
    const { source, target, former, tenant, onProgress } = this.#parts;
    const { signal } = this.#ending;
    while (!signal.aborted) {
      await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        const log = await asAdmin(source, DEFAULT_BOUNDS, (client) =>
          logOf(client, streamName(tenant), former.database),
        );
        const bytes = await asAdmin(target, DEFAULT_BOUNDS, (client) => sizeOf(client, copy));
        if (log.keptBytes > log.mostBytes) {
          this.#fail(
            new UserError(
              "Environment",
              `the server of the database keeps ${mebibytes(log.keptBytes)} of its log for the copy, and may keep ${mebibytes(log.mostBytes)}: ` +
                "move it at a time when less is written there, or while it is parked (--parked)",
            ),
          );
          return;
        }
        const behindBytes = this.#copy ? Math.max(0, Number(log.end - this.#applied)) : undefined;
        const step = this.#copy ? ("Following" as const) : ("Copying" as const);
        onProgress({ step, bytes, totalBytes: log.totalBytes, ...(behindBytes === undefined ? {} : { behindBytes }) });
      } catch (error) {
        // What the stream itself says counts.
        if (!(error instanceof UserError)) this.#fail(error);
      }
    }
  }

  /** The work ends where the copy is ended, also in the midst of a long statement. */
  #connected<T>(login: DatabaseLogin, work: (client: pg.Client) => Promise<T>, bounds: Bounds): Promise<T> {
    const { signal } = this.#ending;
    const run = async (client: pg.Client) => {
      const cut = () => void client.end().catch(() => {});
      signal.addEventListener("abort", cut, { once: true });
      try {
        signal.throwIfAborted();
        return await work(client);
      } finally {
        signal.removeEventListener("abort", cut);
      }
    };
    return withConnection(login, login.database, run, bounds);
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#ending.abort(error);
    this.#stream?.end();
  }

  async #close(): Promise<void> {
    const { source, tenant, former } = this.#parts;
    await closeSource(source, tenant, former);
  }

  #reached(stage: FollowStage): void {
    this.#parts.reached?.(stage);
  }
}

/** All at once, as one transaction. @throws UserError where the copy is not as the database was */
async function apply(to: pg.Client, statements: readonly Statement[]): Promise<void> {
  if (statements.length === 0) return;
  const answer = await to.query(statements.map(({ sql }) => sql).join(";\n"));
  const results = (Array.isArray(answer) ? answer : [answer]) as { rowCount: number | null }[];
  let at = 0;
  for (const { sql, rows } of statements) {
    const found = results[at++]?.rowCount;
    if (rows !== undefined && found !== rows)
      throw differentCopy([`a change of ${rows} rows was one of ${found ?? "none"}: ${sql.slice(0, 60)}`]);
  }
}

async function endOfLog(client: pg.Client): Promise<bigint> {
  const sql = "SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text AS position";
  return positionOf((await client.query<{ position: string }>(sql)).rows[0]?.position ?? "0/0");
}

async function logOf(client: pg.Client, slot: string, database: string) {
  const { rows } = await client.query<{ kept: string | null; most: string; total: string | null; end: string }>(
    `SELECT (SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint::text FROM pg_replication_slots WHERE slot_name = $1) AS kept,
            (SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size')::text AS most,
            (SELECT pg_database_size(oid)::text FROM pg_database WHERE datname = $2) AS total,
            pg_current_wal_flush_lsn()::text AS "end"`,
    [slot, database],
  );
  const [row] = rows;
  const own = Number(row?.most ?? -1);
  const mostBytes = own > 0 ? Math.min(own, MOST_LOG_BYTES) : MOST_LOG_BYTES;
  return {
    keptBytes: Number(row?.kept ?? 0),
    mostBytes,
    totalBytes: Number(row?.total ?? 0),
    end: positionOf(row?.end ?? "0/0"),
  };
}

async function sizeOf(client: pg.Client, database: string): Promise<number> {
  const sql = "SELECT pg_database_size(oid)::text AS bytes FROM pg_database WHERE datname = $1";
  return Number((await client.query<{ bytes: string }>(sql, [database])).rows[0]?.bytes ?? 0);
}

function changedSchema(): UserError {
  return new UserError(
    "Unavailable",
    "its tables or indexes were changed while it was copied, which a log does not have",
  );
}

function differentCopy(different: readonly string[]): UserError {
  return new UserError("Environment", `the copy is not what the database is: ${different.slice(0, 5).join(", ")}`);
}
