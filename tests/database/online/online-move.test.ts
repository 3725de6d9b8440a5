import { spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { withConnection, type AdminLogin } from "../../../src/database/connection.ts";
import type { MoveStage } from "../../../src/database/moves.ts";
import { streamName } from "../../../src/database/names.ts";
import { streamProblem } from "../../../src/database/online/followers.ts";
import { HalfMoved, NotFollowed, type CopyProgress } from "../../../src/ports/database-moves.ts";
import {
  asAdministrator,
  databasesOf,
  expectMoved,
  expectNothingLeft,
  first,
  follow,
  inside,
  move,
  movesThat,
  names,
  own,
  programs,
  second,
  secrets,
  secretsOf,
  servers,
  tenant,
  writing,
} from "./two-servers.ts";

it("has every acknowledged write, once, and no other, while somebody writes until he is shut out", async () => {
  const writer = writing();
  const moves = movesThat();
  const progress: CopyProgress[] = [];
  await follow(moves, (now) => progress.push(now));
  const before = writer.written();
  await expect.poll(() => writer.written()).toBeGreaterThan(before + 130);
  await expect.poll(() => progress.at(-1)?.step).toBe("Following");
  const moved = await move(moves);
  expect(await writer.ended).not.toBe("stopped");
  await expectMoved();
  const events = await inside(second, "SELECT count(*)::int AS n, count(DISTINCT body)::int AS different FROM events");
  // The last one may have been on its way.
  const written = writer.written();
  expect([written, written + 1]).toContain(events[0]?.["n"]);
  expect(events[0]?.["different"]).toBe(events[0]?.["n"]);
  // Its triggers and constraints are as they were.
  await inside(second, "INSERT INTO accounts (name) VALUES ('after'); INSERT INTO children (name) VALUES ('after')");
  await expect(inside(second, "INSERT INTO children (name) VALUES ('nobody')")).rejects.toThrow(/foreign key/);
  expect(await inside(second, "SELECT current_setting('session_replication_role') AS role")).toEqual([
    { role: "origin" },
  ]);
  expect(await inside(second, "SELECT count(*)::int AS n FROM worker_locks")).toEqual([{ n: 0 }]);
  expect(moved.rows).toBeGreaterThan(500);
});

describe("wherever the process is killed", () => {
  const STAGES: MoveStage[] = ["opened", "slot", "copied", "following", "fenced", "shut", "caughtUp", "closed"];
  const killedAt = async (stage: MoveStage) => {
    const logins = { first: first.admin, second: second.admin };
    const input = { ...logins, binDir: programs.binDir, tenant, secrets, epoch: 7, online: true, stage };
    const child = spawn(process.execPath, [join(import.meta.dirname, "../move-process.ts"), JSON.stringify(input)], {
      stdio: ["ignore", "inherit", "inherit"],
    });
    return new Promise<string | null>((done) => child.once("close", (_code, signal) => done(signal)));
  };

  it.each(STAGES)("%s: the tenant has its database, nothing keeps the log, and it is copied again", async (stage) => {
    expect(await killedAt(stage)).toBe("SIGKILL");
    // As the next controller does, before anything else.
    const moves = movesThat();
    await moves.cleanCopies([tenant], secretsOf);
    await expectNothingLeft();
    expect(await databasesOf(second)).toEqual([]);
    await inside(first, "INSERT INTO events (body) VALUES ('meanwhile')");
    await expect(move(moves)).rejects.toBeInstanceOf(NotFollowed);
    expect(await databasesOf(first)).toEqual([own]);
    // Taken back then, nothing of it is left on the other server either.
    await moves.cleanCopies([tenant], secretsOf);
    expect(await databasesOf(second)).toEqual([]);
    await follow(moves);
    await move(moves);
    await expectMoved();
    expect(await inside(second, "SELECT body FROM events")).toEqual([{ body: "meanwhile" }]);
  });

  it("aside: the move is finished with the copy that is there", async () => {
    expect(await killedAt("aside")).toBe("SIGKILL");
    const moves = movesThat();
    await moves.cleanCopies([tenant], secretsOf);
    await expectNothingLeft();
    await move(moves);
    await expectMoved();
  });
});

it("ends with a reason, and leaves nothing, where the target or the stream goes away; the database is as it was", async () => {
  const moves = movesThat();
  await follow(moves);
  await asAdministrator(
    second,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${names.filling}'`,
  );
  await inside(first, "INSERT INTO events (body) VALUES ('one')");
  await expect.poll(() => move(moves).catch((error: unknown) => error)).toBeInstanceOf(NotFollowed);
  await expectNothingLeft(moves);
  expect(await databasesOf(second)).toEqual([]);

  await follow(moves);
  await asAdministrator(
    first,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${streamName("a")}'`,
  );
  await expect.poll(() => move(moves).catch((error: unknown) => error)).toBeInstanceOf(NotFollowed);
  await expectNothingLeft(moves);

  await follow(moves);
  servers.all[1]!.login.port = 1;
  await expect(move(moves)).rejects.toMatchObject({ code: "Unavailable" });
  servers.all[1]!.login.port = second.admin.port;
  await expectNothingLeft(moves);
  expect(await databasesOf(first)).toEqual([own]);
  await inside(first, "INSERT INTO events (body) VALUES ('two')");
  await follow(moves);
  await move(moves);
  await expectMoved();
});

it("leaves alone what another installation has on a server that both use", async () => {
  const others = ["filling_tenant_other", "stream_tenant_other"];
  await asAdministrator(first, "CREATE ROLE stream_tenant_other LOGIN REPLICATION");
  await asAdministrator(first, "COMMENT ON ROLE stream_tenant_other IS 'streams for 42'");
  await asAdministrator(second, "CREATE DATABASE filling_tenant_other");
  await asAdministrator(second, "COMMENT ON DATABASE filling_tenant_other IS 'moved here from db by 42'");
  const there = async () => [
    ...(await asAdministrator(second, "SELECT datname AS name FROM pg_database WHERE datname ~ '^filling_'")),
    ...(await asAdministrator(
      first,
      "SELECT rolname AS name FROM pg_roles WHERE rolname ~ '^stream_' AND rolcanlogin",
    )),
  ];
  try {
    await movesThat().cleanCopies([tenant], secretsOf);
    expect((await there()).map(({ name }) => name)).toEqual(others);
  } finally {
    await asAdministrator(first, "DROP ROLE IF EXISTS stream_tenant_other");
    await asAdministrator(second, "DROP DATABASE IF EXISTS filling_tenant_other");
  }
});

it("is asked twice without harm, and can be left at any time", async () => {
  const moves = movesThat();
  const [one, other] = await Promise.allSettled([follow(moves), sleep(50).then(() => follow(moves))]);
  expect([one?.status, other?.status]).toContain("fulfilled");
  await moves.leave("a");
  await moves.leave("a");
  await expectNothingLeft(moves);
  expect(await databasesOf(second)).toEqual([]);
  expect(await asAdministrator(second, `SELECT FROM pg_roles WHERE rolname = '${own}'`)).toEqual([]);
});

it("stays where it is where its schema changes meanwhile, and where the copy is not what it is", async () => {
  const moves = movesThat();
  await follow(moves);
  await inside(first, "CREATE INDEX late ON loose (a)");
  await expect(move(moves)).rejects.toThrow(/tables or indexes were changed.*definitions/);
  await expectNothingLeft(moves);
  await follow(moves);
  await withConnection(second.admin, names.filling, (client) => client.query("DELETE FROM loose WHERE a = 3"));
  await expect(move(moves)).rejects.toThrow(/not what the database is: "public"."loose"/);
  await expectNothingLeft(moves);
  expect(await databasesOf(first)).toEqual([own]);
  expect(await databasesOf(second)).toEqual([]);
  await inside(first, "INSERT INTO events (body) VALUES ('on')");
});

it.each([
  ["answers", () => second.admin.port],
  ["does not answer", () => 1],
])(
  "gives up before the log that the server keeps for it fills the disk, where the other one %s",
  async (_what, port) => {
    await asAdministrator(first, "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'");
    await asAdministrator(first, "SELECT pg_reload_conf()");
    try {
      const moves = movesThat();
      await follow(moves);
      // The connections to the copy are there already.
      servers.all[1]!.login.port = port();
      // No server forgets its log as quickly as this.
      for (let n = 0; n < 40; n++)
        await asAdministrator(first, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))");
      const nothing = () => asAdministrator(first, "SELECT FROM pg_replication_slots");
      await expect.poll(nothing).toEqual([]);
      servers.all[1]!.login.port = second.admin.port;
      await expect(move(moves)).rejects.toThrow(/keeps \d+\.\d MiB of its log for the copy, and may keep 16.0 MiB/);
      await expectNothingLeft(moves);
    } finally {
      servers.all[1]!.login.port = second.admin.port;
      await asAdministrator(first, "ALTER SYSTEM RESET max_slot_wal_keep_size");
      await asAdministrator(first, "SELECT pg_reload_conf()");
    }
  },
);

it("runs nothing of the tenant's as anybody but the tenant, and nothing as the administrator in its database", async () => {
  await inside(
    first,
    `CREATE TABLE ran (who text);
     CREATE FUNCTION note() RETURNS boolean LANGUAGE plpgsql SECURITY INVOKER AS
       'BEGIN INSERT INTO ran VALUES (current_user); RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END';
     CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM note(); RETURN NEW; END';
     ALTER TABLE loose ENABLE ROW LEVEL SECURITY; ALTER TABLE loose FORCE ROW LEVEL SECURITY;
     CREATE POLICY all_of_it ON accounts USING (note());
     CREATE TRIGGER always BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION noted();
     CREATE DOMAIN checked AS text CHECK (note()); ALTER TABLE accounts ADD COLUMN checked checked;
     ALTER TABLE loose NO FORCE ROW LEVEL SECURITY; ALTER TABLE loose DISABLE ROW LEVEL SECURITY`,
  );
  const from = (await first.log()).length;
  const moves = movesThat();
  await follow(moves);
  // What it writes into the comment on the publication is taken for names of tables, and nothing else.
  const evil = `COMMENT ON PUBLICATION ${streamName("a")} IS '[["public", "loose\\"; DROP TABLE events; --", "n"], 7, ["x"], null]'`;
  await inside(first, `${evil}; ALTER TABLE loose REPLICA IDENTITY DEFAULT`);
  await moves.leave("a");
  const log = (await first.log()).slice(from);
  const inTenants = log.split("\n").filter((line) => new RegExp(`^\\d+ (\\S+)@${own} `).test(line));
  const users = new Set(inTenants.map((line) => /^\d+ (\S+)@/.exec(line)?.[1] ?? ""));
  expect(users).toEqual(new Set([streamName("a"), own]));
  // The stream's role speaks the replication protocol alone.
  const ofStream = inTenants.filter((line) => line.includes(` ${streamName("a")}@`) && line.includes("statement:"));
  expect(ofStream).toEqual([]);
  expect(await inside(first, "SELECT count(*)::int AS n FROM events")).toEqual([{ n: 0 }]);
  const others = await inside(first, `SELECT DISTINCT who FROM ran WHERE who <> '${own}'`);
  expect(others).toEqual([]);
  const role = `SELECT rolname FROM pg_roles WHERE rolreplication AND rolname ~ 'tenant_'`;
  expect(await asAdministrator(first, role)).toEqual([]);
});

describe("why it cannot be copied while its tenant runs", () => {
  const why = () => movesThat().whyNotOnline(tenant, secrets, "db-2");

  it("is nothing where all is as it should be", async () => {
    expect(await why()).toBeUndefined();
  });

  it("is said of background updates, which pass, and of what no log has", async () => {
    await inside(
      first,
      "CREATE TABLE background_updates (update_name text); INSERT INTO background_updates VALUES ('re-index')",
    );
    expect(await why()).toEqual({ words: expect.stringContaining("re-index") as string, isPassing: true });
    await inside(first, "DELETE FROM background_updates; CREATE MATERIALIZED VIEW v AS SELECT 1 AS one");
    expect(await why()).toEqual({ words: expect.stringContaining("materialized views") as string, isPassing: false });
    await inside(first, "DROP MATERIALIZED VIEW v; SELECT lo_create(0)");
    expect(await why()).toEqual({ words: expect.stringContaining("large objects") as string, isPassing: false });
  });

  it("is said of administrators that lack a right, with what to grant", async () => {
    for (const server of [first, second])
      await asAdministrator(server, "CREATE ROLE platform LOGIN CREATEDB CREATEROLE PASSWORD 'secret'");
    const logins = [servers.all[0]!.login, servers.all[1]!.login] as AdminLogin[];
    try {
      Object.assign(logins[0]!, { user: "platform", password: "secret", database: "template1" });
      for (const server of [first, second])
        await asAdministrator(server, "GRANT CONNECT ON DATABASE template1 TO platform");
      expect((await why())?.words).toContain("ALTER ROLE platform REPLICATION");
      await asAdministrator(first, "ALTER ROLE platform REPLICATION");
      Object.assign(logins[1]!, { user: "platform", password: "secret", database: "template1" });
      expect((await why())?.words).toContain("GRANT SET ON PARAMETER session_replication_role TO platform");
      await asAdministrator(second, "GRANT SET ON PARAMETER session_replication_role TO platform");
      expect(await why()).toBeUndefined();
    } finally {
      Object.assign(logins[0]!, { ...first.admin, database: undefined });
      Object.assign(logins[1]!, { ...second.admin, database: undefined });
      await asAdministrator(second, "REVOKE ALL ON PARAMETER session_replication_role FROM platform");
      for (const server of [first, second]) {
        await asAdministrator(server, "REVOKE ALL ON DATABASE template1 FROM platform");
        await asAdministrator(server, "DROP ROLE platform");
      }
    }
  });

  it("is said of a server that streams no changes", () => {
    const good = {
      level: "logical",
      version: 180_000,
      may: true,
      slots: true,
      senders: true,
      user: "p",
      where: "db:5432",
    };
    expect(streamProblem(good)).toBeUndefined();
    expect(streamProblem({ ...good, level: "replica" })).toContain("has wal_level replica: set it to logical");
    expect(streamProblem({ ...good, may: false, version: 150_000 })).toContain("before 16");
    expect(streamProblem({ ...good, slots: false })).toContain("max_replication_slots");
    expect(streamProblem({ ...good, senders: false })).toContain("max_wal_senders");
  });
});

it("finishes a move that was cut off between the two servers, whatever became of its copy", async () => {
  const cut = movesThat((stage) => {
    if (stage === "aside") throw new Error("killed");
  });
  await follow(cut);
  await expect(move(cut)).rejects.toThrow("killed");
  servers.all[0]!.login.port = 1;
  await expect(move(movesThat())).rejects.toBeInstanceOf(HalfMoved);
  servers.all[0]!.login.port = first.admin.port;
  await move(movesThat());
  await expectMoved();
});
