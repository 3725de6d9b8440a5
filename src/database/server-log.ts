import { createReadStream } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { UserError } from "../model/errors.ts";
import { isSegment, lsnValue } from "../model/point-in-time.ts";
import type { Bytes } from "../ports/backups.ts";
import type { BaseFacts, ServerIdentity, ServerLog } from "../ports/point-in-time.ts";
import { asAdmin, DEFAULT_BOUNDS, type AdminLogin } from "./connection.ts";
import { startProgram, type PgPrograms } from "./pg-programs.ts";

/** By it the server knows how far we are. */
const SLOT = "synapse_shards_archive";
const ENDED_MS = 30_000;
const POLL_MS = 100;
/** The label is the first file of the archive. */
const LABEL_WITHIN = 8_192;

/** By pg_receivewal and pg_basebackup, which come with PostgreSQL, and a replication slot. */
export class PostgresServerLog implements ServerLog {
  readonly #server: AdminLogin;
  readonly #programs: PgPrograms;
  readonly #directory: string;

  /** @param directory where received segments wait, of nobody else */
  constructor(server: AdminLogin, programs: PgPrograms, directory: string) {
    this.#server = server;
    this.#programs = programs;
    this.#directory = directory;
  }

  async identify(): Promise<ServerIdentity> {
    const row = await this.#row(
      `SELECT system_identifier::text AS system, timeline_id AS timeline, current_setting('server_version_num')::int / 10000 AS major,
              pg_size_bytes(current_setting('wal_segment_size'))::int AS bytes
       FROM pg_control_system(), pg_control_checkpoint()`,
    );
    return {
      system: String(row["system"]),
      timeline: Number(row["timeline"]),
      segmentBytes: Number(row["bytes"]),
      postgresMajor: Number(row["major"]),
    };
  }

  async keep(mostBytes: number): Promise<boolean> {
    const continues = await this.#asAdmin(async (client) => {
      const wanted = `${Math.ceil(mostBytes / 1024 ** 2)}MB`;
      await client.query(`ALTER SYSTEM SET max_slot_wal_keep_size = '${wanted}'`);
      await client.query("SELECT pg_reload_conf()");
      const slot = await slotOf(client);
      if (slot?.active_pid != null) await endReceiver(client, slot.active_pid);
      if (slot && slot.wal_status !== "lost") return true;
      if (slot) await client.query("SELECT pg_drop_replication_slot($1)", [SLOT]);
      await client.query("SELECT pg_create_physical_replication_slot($1, true)", [SLOT]);
      return false;
    });
    // It would be gone on with what the server no longer has.
    if (!continues) await rm(this.#directory, { recursive: true, force: true });
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    return continues;
  }

  async release(): Promise<void> {
    await this.#asAdmin(async (client) => {
      const slot = await slotOf(client);
      if (!slot) return;
      if (slot.active_pid !== null) await endReceiver(client, slot.active_pid);
      await client.query("SELECT pg_drop_replication_slot($1)", [SLOT]);
      await client.query("ALTER SYSTEM RESET max_slot_wal_keep_size");
      await client.query("SELECT pg_reload_conf()");
    });
    await rm(this.#directory, { recursive: true, force: true });
  }

  async receive(signal: AbortSignal): Promise<void> {
    const args = [`--directory=${this.#directory}`, `--slot=${SLOT}`, "--no-loop", "--no-password"];
    // By default it tells only every ten seconds how far it is, and the server keeps as much more.
    args.push("--status-interval=1");
    const login = { ...this.#server, database: "" };
    const program = await startProgram(this.#programs, "pg_receivewal", args, login, signal);
    program.stdin.end();
    program.stdout.resume();
    try {
      await program.succeeded();
    } finally {
      program.kill();
    }
  }

  async received(): Promise<string[]> {
    const names = await readdir(this.#directory).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    });
    return names.filter(isSegment).toSorted();
  }

  async open(segment: string): Promise<Readable> {
    return createReadStream(join(this.#directory, segment));
  }

  async drop(segment: string): Promise<void> {
    await rm(join(this.#directory, segment), { force: true });
  }

  async position(): Promise<{ position: bigint; committed: string }> {
    // The snapshot is older than the position.
    const row = await this.#row(
      "SELECT pg_current_snapshot()::text AS committed, pg_current_wal_insert_lsn()::text AS position",
    );
    return { position: lsnValue(String(row["position"])), committed: String(row["committed"]) };
  }

  async endSegment({ commit = false }: { commit?: boolean } = {}): Promise<bigint> {
    if (commit) await this.#row("SELECT pg_current_xact_id()::text AS id");
    const row = await this.#row("SELECT pg_switch_wal()::text AS position");
    return lsnValue(String(row["position"]));
  }

  async copy<T>(consume: (tar: Bytes) => Promise<T>, signal: AbortSignal): Promise<BaseFacts & { result: T }> {
    const databases = await this.#asAdmin(async (client) => {
      const { rows } = await client.query<{ oid: string; name: string; bytes: string }>(
        "SELECT oid::text AS oid, datname AS name, pg_database_size(oid)::text AS bytes FROM pg_database WHERE datname IS NOT NULL",
      );
      return rows.map(({ oid, name, bytes }) => ({ oid: Number(oid), name, bytes: Number(bytes) }));
    });
    // The log is not in it, as it is received anyhow; hashes of each file neither, as the archive as a whole has one.
    const args = ["--pgdata=-", "--format=tar", "--wal-method=none", "--checkpoint=fast", "--no-manifest"];
    const login = { ...this.#server, database: "" };
    const more = ["--label=synapse-shards", "--no-password"];
    const program = await startProgram(this.#programs, "pg_basebackup", [...args, ...more], login, signal);
    program.stdin.end();
    let beginning = "";
    async function* tar(): AsyncGenerator<Uint8Array, void, undefined> {
      for await (const chunk of program.stdout) {
        if (beginning.length < LABEL_WITHIN) beginning += (chunk as Buffer).toString("latin1");
        yield chunk as Uint8Array;
      }
      // Before its end is seen: what is cut short is never taken for whole.
      await program.succeeded();
    }
    try {
      const result = await consume(tar());
      const start = /START WAL LOCATION: ([0-9A-F]+\/[0-9A-F]+)/.exec(beginning)?.[1];
      if (start === undefined) throw new UserError("Environment", "pg_basebackup does not say where its copy begins");
      // Where it ended, or a little later.
      const { end } = await this.#row("SELECT pg_current_wal_insert_lsn()::text AS end");
      return { start, end: String(end), databases, result };
    } finally {
      program.kill();
    }
  }

  #asAdmin<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    return asAdmin(this.#server, DEFAULT_BOUNDS, work);
  }

  #row(sql: string): Promise<Record<string, unknown>> {
    return this.#asAdmin(async (client) => {
      const { rows } = await client.query<Record<string, unknown>>(sql);
      return rows[0] ?? {};
    });
  }
}

interface Slot {
  wal_status: string | null;
  active_pid: number | null;
}

async function slotOf(client: pg.Client): Promise<Slot | undefined> {
  const { rows } = await client.query<Slot>(
    "SELECT wal_status, active_pid FROM pg_replication_slots WHERE slot_name = $1",
    [SLOT],
  );
  return rows[0];
}

/** Left by a process before this one: two would write into one file. */
async function endReceiver(client: pg.Client, pid: number): Promise<void> {
  await client.query("SELECT pg_terminate_backend($1, 5000)", [pid]);
  for (const deadline = Date.now() + ENDED_MS; (await slotOf(client))?.active_pid != null; await sleep(POLL_MS))
    if (Date.now() > deadline)
      throw new UserError("Unavailable", `process ${pid} of PostgreSQL does not stop sending its log`);
}
