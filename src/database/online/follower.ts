import { randomBytes } from "node:crypto";
import type pg from "pg";
import { setTimeout as sleep } from "node:timers/promises";
import { mebibytes } from "../../model/bytes.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { CopyPostponed, HalfMoved, NotFollowed, type CopyProgress } from "../../ports/database-moves.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import {
  asAdmin,
  connectedUntil,
  DEFAULT_BOUNDS,
  identifier,
  literal,
  placeOf,
  type AdminLogin,
  type Bounds,
} from "../connection.ts";
import { emptyBeside, lockedOn, mark, open, readyBeside, SNAPSHOT_BOUNDS, type Patience } from "../copies.ts";
import { fenceAgainstAll, hasFence, raiseEpoch } from "../fence.ts";
import { movedHere, streamName } from "../names.ts";
import { copiedWithin, pgDump, type PgPrograms } from "../pg-programs.ts";
import { restoreDump } from "../restore-dump.ts";
import { scramVerifier } from "../scram.ts";
import { apply, APPLY_SETTINGS, batches, differentCopy } from "./applying.ts";
import { ChangeStream } from "./change-stream.ts";
import {
  closeToOthers,
  endOfLog,
  endOthers,
  flushedEnd,
  logOf,
  oldestTransaction,
  pidOf,
  sizeOf,
} from "./server-facts.ts";
import { changedSchema, schemaHash, shapeOf, type Shape } from "./shape.ts";
import { closeSource, openSource, resetCopiedIdentities, unpublish, type Changed } from "./source.ts";
import { OtherTable, Statements, type RowCounts } from "./statements.ts";
import { alwaysGenerated, copySequences, countRows, otherCounts, smallPlacesIn } from "./tables.ts";

/** As long as a stream may last; a timer holds no more. */
const STREAM_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 20 * 86_400_000, isReplication: true };
const APPLY_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 600_000 };
const LOOK_MS = 2_000;
const LOOK_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 10_000 };
/** A minute or so of a server that is busy. */
const MOST_FAILED_LOOKS = 5;
const WAIT_MS = 1_000;
const POLL_MS = 20;
/** The copy follows closely where what was written until then is there so soon. */
const CLOSE_MS = 1_000;
/** Who writes faster than it is copied would hold a place that others wait for. */
const LONGEST_CATCHING_UP_MS = 3_600_000;
/** Before anybody is shut out: a copy that has fallen behind is not waited for by a tenant that does not answer. */
const STILL_CLOSE_MS = 5_000;
/** Longer than what is left where it follows closely; gateways hold requests for 30 seconds. */
const SWITCH_MS = 20_000;
const SWITCH_BOUNDS: Bounds = { connectMs: 5_000, statementMs: SWITCH_MS };
const FENCE_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 10_000 };
/** Somebody waits for the tenant. */
const HASTE: Patience = { waitMs: 5_000, bounds: SWITCH_BOUNDS };
/** Tables as the tenant sees them are in the way of what was decided already: triggers, and the order of what refers to each other. */
const WITHOUT_TRIGGERS = "session_replication_role = replica";

export type FollowStage = "opened" | "slot" | "copied" | "following" | "fenced" | "shut" | "caughtUp" | "closed";

export interface FollowerParts {
  tenant: string;
  /** With which all that is made is marked. */
  installation: string;
  source: AdminLogin;
  target: AdminLogin;
  former: DatabaseLogin;
  programs: PgPrograms;
  onProgress: (progress: CopyProgress) => void;
  /** Its rows are copied within that. */
  copyMs: number;
  /** Told after each stage: a test ends the process there. */
  reached?: (stage: FollowStage) => void;
}

/**
 * Copies a database to another server while its tenant writes to it, and then follows what is written, until it is told to switch.
 *
 * A subscription of PostgreSQL's own would have to reach the former server from the other one: the cluster's own listens on its machine alone. It
 * also takes a superuser, or pg_create_subscription, where a role that may make databases and roles is asked for otherwise. So both servers are
 * spoken to by this process alone. The copy is made of the snapshot with which the slot begins, by the tenant's own role; changes are made again by
 * that role too, under a password that the tenant does not have. Nothing is resumed: a copy that breaks off is begun again, so nothing can be applied
 * twice.
 */
export class Follower {
  readonly #parts: FollowerParts;
  readonly #ending = new AbortController();
  /** Ends the switch, which goes on for a moment after the stream has ended. */
  readonly #failing = new AbortController();
  readonly #ready: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #ended: Promise<void>;
  #failure: unknown;
  #stream: ChangeStream | undefined;
  #applied = 0n;
  #counts: RowCounts = new Map();
  #schema = "";
  #shape: Shape = { tables: [], marks: "" };
  #changed: Changed[] = [];
  #generated: { place: string; column: string }[] = [];
  #copy: DatabaseLogin | undefined;

  constructor(parts: FollowerParts) {
    this.#parts = parts;
    this.#ready.promise.catch(() => {});
    this.#ended = this.#run()
      .catch((error: unknown) => void (this.#failure ??= error))
      .then(() => this.#ready.reject(this.#failure ?? ended()));
  }

  /** Resolves when the copy follows closely. @throws what it has failed of */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Ends it, and removes what it has made on the source. */
  async end(): Promise<void> {
    const { source, tenant, former } = this.#parts;
    await this.#endStream();
    await closeSource(source, tenant, former);
  }

  async #endStream(): Promise<void> {
    this.#ending.abort(ended());
    this.#stream?.end();
    await this.#ended;
  }

  /**
   * Shuts out whoever has the database, takes over the last that was written, and makes the copy ready to take its place.
   * @returns what is in it @throws NotFollowed; UserError where the database stays where it is; HalfMoved where it cannot be opened again
   */
  async finish(epoch: number): Promise<{ tables: number; rows: number }> {
    const { former, source } = this.#parts;
    const copy = this.#copy;
    if (!copy || this.#failure)
      throw new NotFollowed(`its copy has come to nothing: ${messageOf(this.#failure ?? "")}`);
    await this.#catchUp(await asAdmin(source, DEFAULT_BOUNDS, endOfLog), STILL_CLOSE_MS);
    await fenceAgainstAll(former, epoch, FENCE_BOUNDS);
    this.#reached("fenced");
    const late = setTimeout(() => {
      const words = `what was left to do took longer than ${SWITCH_MS / 1000} seconds`;
      this.#fail(new UserError("Unavailable", words));
    }, SWITCH_MS);
    const { signal } = this.#failing;
    try {
      const connected = (from: pg.Client) =>
        connectedUntil(signal, copy, (to) => this.#switch(from, to, epoch), SWITCH_BOUNDS);
      await connectedUntil(signal, former, connected, SWITCH_BOUNDS);
      await this.#makeReady(() => {
        signal.throwIfAborted();
        clearTimeout(late);
      });
    } catch (error) {
      await this.#openAgain(error);
      throw error;
    } finally {
      clearTimeout(late);
    }
    const rows = [...this.#counts.values()].reduce((sum, count) => sum + count, 0n);
    return { tables: this.#counts.size, rows: Number(rows) };
  }

  async #switch(from: pg.Client, to: pg.Client, epoch: number): Promise<void> {
    const { former, source, programs, tenant } = this.#parts;
    const name = streamName(tenant);
    await from.query("SET search_path TO pg_catalog");
    const [, schema] = await Promise.all([
      this.#catchUp(await flushedEnd(from), SWITCH_MS),
      schemaHash(programs, former, this.#failing.signal),
    ]);
    if (schema !== this.#schema) throw changedSchema("its definitions");
    // The fence keeps out who heeds it. From here on the server lets nobody in.
    const pid = await pidOf(from);
    await asAdmin(source, FENCE_BOUNDS, (client) => closeToOthers(client, former.database, pid));
    this.#reached("shut");
    const othersLeft = () => asAdmin(source, FENCE_BOUNDS, (client) => endOthers(client, former.database, pid));
    // Who was just being let in may have written after what was waited for.
    do await this.#catchUp(await flushedEnd(from), SWITCH_MS);
    while ((await othersLeft()) > 0);
    const { marks } = await shapeOf(from, name);
    if (marks !== this.#shape.marks) throw changedSchema("a table was changed, emptied or written again");
    await copySequences(from, to);
    await this.#compare(from, to);
    for (const { place, column } of this.#generated)
      await to.query(`ALTER TABLE ${place} ALTER COLUMN ${identifier(column)} SET GENERATED ALWAYS`);
    // Its commit also flushes what was written without waiting for that.
    await to.query("SET synchronous_commit = on");
    if (await hasFence(to)) await raiseEpoch(to, epoch);
    this.#reached("caughtUp");
    await this.#endStream();
    await unpublish(from, name, { alone: true });
  }

  /** @param inTime called before what makes the copy whole @throws UserError, as `inTime` does */
  async #makeReady(inTime: () => void): Promise<void> {
    const { former, target, tenant, source, installation } = this.#parts;
    await closeSource(source, tenant, undefined, HASTE);
    this.#reached("closed");
    const making = async (client: pg.Client) => {
      const password = literal(scramVerifier(former.password));
      await client.query(`ALTER ROLE ${identifier(former.user)} WITH LOGIN PASSWORD ${password}`);
      inTime();
      await readyBeside(client, tenant, movedHere(former.host, installation));
    };
    await lockedOn(target, tenant, making, HASTE);
  }

  /** @throws HalfMoved where it cannot be: the next attempt begins with that */
  async #openAgain(why: unknown): Promise<void> {
    const { source, former } = this.#parts;
    try {
      await asAdmin(source, DEFAULT_BOUNDS, (client) => open(client, former.database));
    } catch (error) {
      const words = `the switch came to nothing (${messageOf(why)}), and the database cannot be opened again yet: ${messageOf(error)}`;
      throw new HalfMoved(words, { cause: error });
    }
  }

  async #run(): Promise<void> {
    const { source, target, tenant, installation, former } = this.#parts;
    const { signal } = this.#ending;
    const { login: stream, changed } = await openSource(source, { tenant, installation }, former, signal);
    this.#changed = changed;
    this.#reached("opened");
    signal.throwIfAborted();
    // The tenant knows its own password, and has nothing to do in the copy before it is whole.
    const password = randomBytes(32).toString("base64url");
    const copy = await lockedOn(target, tenant, async (client) => {
      const login = await emptyBeside(client, target, tenant, password);
      // By which it is known as nobody's once this process is gone.
      await mark(client, login.database, movedHere(former.host, installation));
      return login;
    });
    signal.throwIfAborted();
    const watch = this.#watch(copy.database);
    try {
      await connectedUntil(signal, stream, (client) => this.#streamTo(client, copy), STREAM_BOUNDS);
    } finally {
      this.#ending.abort(ended());
      await watch;
    }
  }

  async #streamTo(client: pg.Client, copy: DatabaseLogin): Promise<void> {
    const { tenant, source } = this.#parts;
    const { signal } = this.#ending;
    const name = streamName(tenant);
    const stream = new ChangeStream(client);
    this.#stream = stream;
    try {
      const snapshot = await stream.open(name).catch(async (error: unknown) => {
        if (!(error instanceof CopyPostponed)) throw error;
        const whose = await asAdmin(source, DEFAULT_BOUNDS, oldestTransaction);
        throw new CopyPostponed(`${error.message}${whose === undefined ? "" : ` (in ${whose})`}`);
      });
      this.#reached("slot");
      await this.#copyTables(snapshot, copy);
      await this.#prepareCopy(copy);
      this.#reached("copied");
      signal.throwIfAborted();
      stream.start(name, name);
      const following = async (to: pg.Client) => {
        await to.query(APPLY_SETTINGS);
        const { rows } = await to.query<{ role: string }>("SELECT current_setting('session_replication_role') AS role");
        if (rows[0]?.role !== "replica") throw new UserError("Unauthorized", "triggers would run in the copy");
        this.#copy = copy;
        void this.#becomeClose(source);
        await this.#follow(stream, to);
      };
      await connectedUntil(signal, copy, following, APPLY_BOUNDS);
    } finally {
      stream.end();
    }
  }

  /** Fills the copy with what the database is at a snapshot. */
  async #copyTables(snapshot: string, copy: DatabaseLogin): Promise<void> {
    const { former, programs, tenant } = this.#parts;
    const { signal } = this.#ending;
    const copying = async (client: pg.Client) => {
      await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      await client.query(`SET TRANSACTION SNAPSHOT '${snapshot.replaceAll("'", "")}'`);
      this.#shape = await shapeOf(client, streamName(tenant));
      this.#schema = await schemaHash(programs, former, signal, snapshot);
      // Tables that a crash empties are empty in the copy as well.
      const more = ["--compress=0", "--no-unlogged-table-data"];
      await copiedWithin(this.#parts.copyMs, signal, (until) =>
        restoreDump(programs, copy, pgDump(programs, former, snapshot, until, more), until),
      );
      this.#counts = await countRows(client, this.#shape.tables.map(placeOf));
    };
    await connectedUntil(signal, former, copying, SNAPSHOT_BOUNDS);
  }

  async #prepareCopy(copy: DatabaseLogin): Promise<void> {
    const { target } = this.#parts;
    const preparing = async (client: pg.Client) => {
      const different = otherCounts(this.#counts, await countRows(client, [...this.#counts.keys()]));
      if (different.length > 0) throw differentCopy(different);
      await resetCopiedIdentities(client, this.#changed);
      // Updates could not set them otherwise.
      this.#generated = await alwaysGenerated(client);
      for (const { place, column } of this.#generated)
        await client.query(`ALTER TABLE ${place} ALTER COLUMN ${identifier(column)} SET GENERATED BY DEFAULT`);
      // Without it, the first queries after the switch would be planned for empty tables.
      await client.query("ANALYZE");
    };
    await connectedUntil(this.#ending.signal, copy, preparing, SNAPSHOT_BOUNDS);
    const where = `ROLE ${identifier(copy.user)} IN DATABASE ${identifier(copy.database)}`;
    await asAdmin(target, DEFAULT_BOUNDS, (client) => client.query(`ALTER ${where} SET ${WITHOUT_TRIGGERS}`));
  }

  async #follow(stream: ChangeStream, to: pg.Client): Promise<void> {
    const tables = this.#shape.tables.map((table) => [table.oid, { place: placeOf(table), columns: table.columns }]);
    const statements = new Statements(
      this.#counts,
      new Map(tables as [number, { place: string; columns: string[] }][]),
    );
    for (;;) {
      const { messages, position } = await stream.next(WAIT_MS);
      try {
        for (const message of messages) statements.add(message);
      } catch (error) {
        throw error instanceof OtherTable ? changedSchema(error.message) : error;
      }
      for (const batch of batches(statements.take())) await apply(to, batch);
      this.#applied = position;
      stream.applied(position);
    }
  }

  /** Says when what was written until a moment is there soon after it. */
  async #becomeClose(source: AdminLogin): Promise<void> {
    const deadline = performance.now() + LONGEST_CATCHING_UP_MS;
    try {
      for (;;) {
        const asked = performance.now();
        const end = await asAdmin(source, DEFAULT_BOUNDS, endOfLog);
        await this.#catchUp(end, LONGEST_CATCHING_UP_MS);
        if (performance.now() - asked < CLOSE_MS) break;
        if (performance.now() > deadline)
          throw new UserError(
            "Conflict",
            "more is written to it than can be copied: move it while it is parked (--parked)",
          );
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
    const { source, former, tenant } = this.#parts;
    const { signal } = this.#ending;
    const name = streamName(tenant);
    let failedLooks = 0;
    let telling: Promise<void> | undefined;
    while (!signal.aborted) {
      await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        const log = await asAdmin(source, LOOK_BOUNDS, (client) => logOf(client, name, former.database));
        failedLooks = 0;
        if (log.keptBytes > log.mostBytes) {
          const [kept, most] = [mebibytes(log.keptBytes), mebibytes(log.mostBytes)];
          const words = `the server of the database keeps ${kept} of its log for the copy, and may keep ${most}`;
          const advice = "move it at a time when less is written there, or while it is parked (--parked)";
          this.#fail(new UserError("Environment", `${words}: ${advice}`));
          return;
        }
        // A target that does not answer keeps nobody from looking at the source.
        telling ??= this.#tellProgress(log, copy).finally(() => (telling = undefined));
      } catch (error) {
        failedLooks += 1;
        // What the stream itself says counts, but nobody knows then how much is kept for it.
        if (!(error instanceof UserError) || failedLooks >= MOST_FAILED_LOOKS) this.#fail(error);
      }
    }
  }

  async #tellProgress({ end, totalBytes }: { end: bigint; totalBytes: number }, copy: string): Promise<void> {
    const { target, onProgress } = this.#parts;
    try {
      const bytes = await asAdmin(target, LOOK_BOUNDS, (client) => sizeOf(client, copy));
      const behindBytes = this.#copy ? Math.max(0, Number(end - this.#applied)) : undefined;
      const step = this.#copy ? ("Following" as const) : ("Copying" as const);
      if (this.#ending.signal.aborted) return;
      onProgress({ step, bytes, totalBytes, ...(behindBytes === undefined ? {} : { behindBytes }) });
    } catch (error) {
      if (!(error instanceof UserError)) this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#ending.abort(error);
    this.#failing.abort(error);
    this.#stream?.end();
  }

  #reached(stage: FollowStage): void {
    this.#parts.reached?.(stage);
  }
}

function ended(): UserError {
  return new UserError("Unavailable", "the copy was ended");
}
