/** A tenant that owns its database loses nothing by a move that it makes hard, and neither stops nor harms anybody else's. */
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { describe, expect, it } from "vitest";
import { DEFAULT_BOUNDS, withConnection } from "../../../src/database/connection.ts";
import { lockedOn, PostgresCopies, rename } from "../../../src/database/copies.ts";
import { fenceAgainstAll } from "../../../src/database/fence.ts";
import { streamName } from "../../../src/database/names.ts";
import { closeToOthers, flushedEnd } from "../../../src/database/online/server-facts.ts";
import { PostgresMoves } from "../../../src/database/moves.ts";
import { lsnValue } from "../../../src/model/point-in-time.ts";
import { NotFollowed } from "../../../src/ports/database-moves.ts";
import {
  asAdministrator,
  contents,
  databases,
  databasesOf,
  expectMoved,
  expectNothingLeft,
  first,
  follow,
  inside,
  loginOf,
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
} from "./two-servers.ts";

const stream = streamName("a");

/** A connection of the tenant's that stays. */
async function connected<T>(work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client(loginOf(first));
  client.on("error", () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
}

/** A connection that has a table of the copy locked. */
async function locking(table: string): Promise<Client> {
  const client = new Client({ ...second.admin, database: names.filling });
  // The copy is removed meanwhile.
  client.on("error", () => {});
  await client.connect();
  await client.query(`BEGIN; LOCK TABLE ${table}`);
  return client;
}

it("waits for commits that were acknowledged before they were on the disk", async () => {
  await asAdministrator(first, "ALTER SYSTEM SET wal_writer_delay = '10s'");
  await asAdministrator(first, "SELECT pg_reload_conf()");
  try {
    await asAdministrator(first, `ALTER ROLE ${own} SET synchronous_commit = off`);
    await connected(async (client) => {
      for (let n = 0; n < 50; n++) {
        await client.query("INSERT INTO events (body) VALUES ('here')");
        const { rows } = await client.query<{ at: string }>("SELECT pg_current_wal_insert_lsn()::text AS at");
        expect(await flushedEnd(client)).toBeGreaterThanOrEqual(lsnValue(rows[0]?.at ?? ""));
        await client.query("SET synchronous_commit = off");
      }
    });
    await inside(first, "DELETE FROM events");
    const moves = movesThat();
    await follow(moves);
    // Up to the last moment before somebody is shut out.
    let written = 0;
    const writer = connected(async (client) => {
      for (;;) {
        await client.query(`INSERT INTO events (body) VALUES ('${written}')`);
        written += 1;
      }
    }).catch(() => {});
    await expect.poll(() => written).toBeGreaterThan(20);
    await move(moves);
    await writer;
    const [found] = await inside(second, "SELECT count(*)::int AS n FROM events");
    expect(found?.["n"]).toBeGreaterThanOrEqual(written);
    await expectMoved();
  } finally {
    await asAdministrator(first, "ALTER SYSTEM RESET wal_writer_delay");
    await asAdministrator(first, "SELECT pg_reload_conf()");
  }
});

it("leaves no role that may do anything, and is purged, where the tenant granted the stream's role something", async () => {
  const moves = movesThat();
  await follow(moves);
  await inside(first, `GRANT SELECT ON accounts TO ${stream}; GRANT CONNECT ON DATABASE ${own} TO ${stream}`);
  await moves.leave("a");
  const roles = "SELECT rolcanlogin OR rolreplication AS may FROM pg_roles WHERE rolname ~ '^stream_'";
  expect(await asAdministrator(first, roles)).toEqual([{ may: false }]);
  // It neither fails nor keeps what else is to be cleaned.
  await moves.cleanCopies([tenant], secretsOf);
  await follow(moves);
  await moves.leave("a");
  await databases.drop("a");
  expect(await asAdministrator(first, roles)).toEqual([]);
  expect(await databasesOf(first)).toEqual([]);
});

describe("is begun again, with nothing lost, where meanwhile", () => {
  const HIDDEN: Record<string, string> = {
    "a table was dropped and made again": `BEGIN; DROP TABLE parent CASCADE; CREATE TABLE parent (a int, b text); CREATE TABLE child () INHERITS (parent); COMMIT;
      INSERT INTO parent VALUES (1)`,
    "all rows of a table were written again, and its type is as it was":
      "ALTER TABLE parent ALTER a TYPE text USING 'x' || a; ALTER TABLE parent ALTER a TYPE int USING 7",
    "a column was dropped and made again": "ALTER TABLE parent DROP b; ALTER TABLE parent ADD b text",
    "two tables were called by each other's name for a time": `BEGIN; ALTER TABLE loose RENAME TO x; ALTER TABLE totals RENAME TO loose; COMMIT;
      INSERT INTO x VALUES (11); BEGIN; ALTER TABLE loose RENAME TO totals; ALTER TABLE x RENAME TO loose; COMMIT`,
    "a table was left out of the publication for a time": `ALTER PUBLICATION ${stream} DROP TABLE ONLY parent; UPDATE parent SET b = 'lost';
      ALTER PUBLICATION ${stream} ADD TABLE ONLY parent`,
    "a table was emptied": "TRUNCATE parent",
    "a policy was made": "CREATE POLICY all_of_it ON accounts USING (true)",
    "an index was made": "CREATE INDEX late ON loose (a)",
  };
  it.each(Object.entries(HIDDEN))("%s", async (_what, sql) => {
    await inside(first, "INSERT INTO parent VALUES (1, 'first')");
    const moves = movesThat();
    await follow(moves);
    for (const statement of sql.split(";\n")) await inside(first, statement);
    await expect(move(moves)).rejects.toMatchObject({ code: "Unavailable" });
    await expectNothingLeft(moves);
    expect(await databasesOf(first)).toEqual([own]);
    expect(await databasesOf(second)).toEqual([]);
  });
});

it.each([
  ["large objects", "SELECT lo_create(0)"],
  ["materialized views", "CREATE MATERIALIZED VIEW v AS SELECT 1 AS one"],
  ["unlogged table", "CREATE UNLOGGED TABLE u AS SELECT 1 AS one"],
  ["triggers", "ALTER TABLE accounts ENABLE ALWAYS TRIGGER counted"],
])("does not switch where it has %s by then, which would be lost", async (what, sql) => {
  const moves = movesThat();
  await follow(moves);
  await inside(first, sql);
  // Its definitions tell of most of it already.
  await expect(move(moves)).rejects.toThrow(new RegExp(`${what}|definitions`));
  expect((await movesThat().whyNotOnline(tenant, secrets, "db-2"))?.words).toContain(what);
  await expectNothingLeft(moves);
});

it("takes a row that is too large for the controller's memory for a reason to end, and ends alone", async () => {
  const moves = movesThat();
  await follow(moves);
  await inside(first, "INSERT INTO events (body) SELECT repeat('x''\\', 8 * 1024 * 1024)");
  const before = process.memoryUsage().rss;
  const failed = () => move(moves).catch((error: unknown) => error);
  await expect.poll(failed).toBeInstanceOf(NotFollowed);
  expect(process.memoryUsage().rss - before).toBeLessThan(1024 ** 3);
  await expectNothingLeft(moves);
});

it("copies values whatever the tenant has set for how they are written and read", async () => {
  for (const setting of [
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "TimeZone = 'Asia/Kolkata'",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
  ])
    for (const whom of [`DATABASE ${own}`, `ROLE ${own}`]) await inside(first, `ALTER ${whom} SET ${setting}`);
  const moves = movesThat();
  await follow(moves);
  await inside(
    first,
    `UPDATE exact SET f = 0.3, t = '2026-03-02 01:02:03.000456+05', i = '-1 year 2 days 03:04', money = 3.25;
     INSERT INTO accounts VALUES (chr(39) || chr(92), '{}', '2026-02-01 00:00:00+00', decode('5c00ff27', 'hex'), '{}', 0.1::float8 + 0.2,
       repeat('a' || chr(39) || chr(92), 3000), NULL);
     DELETE FROM exact WHERE ctid = (SELECT min(ctid) FROM exact)`,
  );
  await move(moves);
  await inside(first, `ALTER ROLE ${own} RESET ALL`).catch(() => {});
  await asAdministrator(first, `ALTER ROLE ${own} RESET ALL`);
  await asAdministrator(first, `ALTER DATABASE ${names.moved} RESET ALL`);
  await expectMoved();
});

it("follows tables whose keys are deferrable, generated always, or inherited, and rows that `=` takes for each other", async () => {
  await inside(
    first,
    `CREATE TABLE later (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n int); INSERT INTO later VALUES (1, 1), (2, 2);
     CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY, n int PRIMARY KEY, x int GENERATED ALWAYS AS (n + 1) STORED);
     INSERT INTO always (n) VALUES (1), (2);
     INSERT INTO parent VALUES (1, 'p'), (2, 'p'); INSERT INTO child VALUES (1, 'p'), (2, 'p');
     CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
     CREATE TYPE pair AS (a int, b json); CREATE TABLE pairs (p pair, j json[]); INSERT INTO pairs VALUES (NULL, NULL), (ROW(NULL, NULL), '{}')`,
  );
  const moves = movesThat();
  await follow(moves);
  await inside(
    first,
    `BEGIN; UPDATE later SET id = 3 - id; COMMIT; UPDATE later SET n = 5 WHERE id = 1; DELETE FROM later WHERE id = 2;
     UPDATE always SET id = DEFAULT WHERE n = 1; UPDATE always SET n = 7 WHERE n = 2;
     UPDATE ONLY parent SET b = 'changed' WHERE a = 1; DELETE FROM child WHERE a = 2;
     DELETE FROM nothing WHERE ctid = (SELECT min(ctid) FROM nothing);
     UPDATE exact SET n = 'z' WHERE d::text = '1.00'; UPDATE pairs SET j = '{1}' WHERE p IS NOT DISTINCT FROM NULL`,
  );
  await move(moves);
  await expectMoved();
  expect(
    await inside(
      second,
      "SELECT attidentity AS is FROM pg_attribute WHERE attrelid = 'always'::regclass AND attname = 'id'",
    ),
  ).toEqual([{ is: "a" }]);
  await expect(inside(second, "INSERT INTO always (id, n) VALUES (1, 9)")).rejects.toThrow(/non-DEFAULT/);
});

it("does not make a tenant's requests wait for long behind what reads its tables", async () => {
  await connected(async (reader) => {
    await reader.query("BEGIN; LOCK TABLE loose IN ACCESS SHARE MODE");
    const from = (await first.log()).length;
    const moves = movesThat();
    const following = follow(moves).catch((error: unknown) => error);
    await connected(async (writer) => {
      // What waits for longer fails.
      await writer.query("SET lock_timeout = '1s'");
      const hasGivenWay = async () => (await first.log()).slice(from).includes("due to lock timeout");
      while (!(await hasGivenWay())) await writer.query("INSERT INTO loose VALUES (1)");
    });
    // What is locked for so long is removed later.
    await moves.leave("a").catch(() => {});
    expect(await following).toBeInstanceOf(Error);
    await reader.query("COMMIT");
    await moves.cleanCopies([tenant], secretsOf);
    await expectNothingLeft(moves);
  });
});

it("is in no backup: neither a publication, nor how rows are told apart for it", async () => {
  const moves = movesThat();
  await follow(moves);
  const copies = new PostgresCopies(servers, programs);
  const { signal } = new AbortController();
  const backup = { password: secrets.databasePassword, backup: "b" };
  await copies.dump(tenant, secrets, (dump) => copies.restoreBeside("a", backup, dump, signal), signal);
  expect(await inside(first, "SELECT FROM pg_publication", names.restored)).toEqual([]);
  const full = "SELECT relname FROM pg_class WHERE relreplident = 'f'";
  expect(await inside(first, full, names.restored)).toEqual([]);
  expect(await inside(first, full)).not.toEqual([]);
  await copies.forget("a");
  await moves.leave("a");
});

describe("a switch that comes to nothing", () => {
  it("ends soon, with the database open to its tenant, where the copy does not answer", async () => {
    const moves = movesThat();
    await follow(moves);
    const reader = await locking("events");
    const begun = performance.now();
    await expect(move(moves)).rejects.toThrow(/took longer than 20 seconds/);
    expect(performance.now() - begun).toBeLessThan(60_000);
    await inside(first, "INSERT INTO events (body) VALUES ('on')");
    await reader.end();
    await expectNothingLeft(moves);
  });

  it("ends soon, with the database open to its tenant, where somebody else works on the copy's server", async () => {
    const held = Promise.withResolvers<void>();
    const got = Promise.withResolvers<void>();
    const hold = () => {
      got.resolve();
      return held.promise;
    };
    let holding: Promise<void> | undefined;
    const moves = movesThat((stage) => {
      if (stage === "fenced") holding = lockedOn(second.admin, "a", hold);
    });
    await follow(moves);
    // The switch goes on once the other one is at work.
    const reader = await locking("events");
    const begun = performance.now();
    const moving = move(moves).catch((error: unknown) => error);
    try {
      await Promise.race([got.promise, moving]);
      await reader.end();
      expect(await moving).toMatchObject({ code: "Timeout" });
      expect(performance.now() - begun).toBeLessThan(30_000);
      await inside(first, "INSERT INTO events (body) VALUES ('on')");
    } finally {
      held.resolve();
      await holding;
    }
    await expectNothingLeft(moves);
    expect(await databasesOf(second)).toEqual([]);
  });

  it("has shut nobody out where the copy has fallen behind", async () => {
    const moves = movesThat();
    await follow(moves);
    await withConnection(second.admin, names.filling, async (client) => {
      await client.query("BEGIN; LOCK TABLE events");
      await inside(first, "INSERT INTO events (body) VALUES ('on')");
      await connected(async (tenants) => {
        await expect(move(moves)).rejects.toThrow(/of the log behind after 5 seconds/);
        await tenants.query("INSERT INTO events (body) VALUES ('on')");
      });
    });
    await expectNothingLeft(moves);
  });
});

describe("what the tenant's own code does while its database is copied", () => {
  const slow = `CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS
      'BEGIN IF current_database() LIKE ''filling%'' THEN PERFORM pg_sleep(3600); END IF; RETURN true; END';
    CREATE TABLE waits (n int CHECK (slow())); INSERT INTO waits VALUES (1)`;

  it.each([
    ["while it runs", (moves: PostgresMoves) => follow(moves)],
    ["while it is parked", (moves: PostgresMoves) => moves.move(tenant, secrets, { to: "db-2", epoch: 7 })],
  ])("ends with the time that there is for it: %s", async (_when, copy) => {
    await inside(first, slow);
    const moves = new PostgresMoves(servers, programs, () => {}, 5_000);
    await expect(copy(moves)).rejects.toMatchObject({
      code: "Conflict",
      message: "its rows were not copied in 5 seconds",
    });
    await expectNothingLeft(moves);
    expect(
      await asAdministrator(second, "SELECT FROM pg_stat_activity WHERE query ~ 'waits'  AND pid <> pg_backend_pid()"),
    ).toEqual([]);
    expect(await databasesOf(second)).toEqual([]);
    await inside(first, "INSERT INTO events (body) VALUES ('on')");
  });

  it("takes no memory of who copies it, and few words of a record, with an error of any length", async () => {
    const raise = (characters: number) =>
      inside(first, `DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', ${characters}); END $$`);
    await expect(raise(40_000_000)).rejects.toThrow(/an answer has more than 16 MiB/);
    const error = (await raise(5_000_000).catch((found: unknown) => found)) as Error;
    const cause = error.cause as Error;
    expect(error.message).toMatch(/xxx …$/);
    expect([error.message, cause.message, cause.stack].map((words) => (words?.length ?? 0) < 2_000)).toEqual([
      true,
      true,
      true,
    ]);
  });
});

it("lets nobody write past its fence, who has the tenant's password", async () => {
  let refused: unknown;
  const shut: Promise<unknown>[] = [];
  const moves = movesThat((stage) => {
    if (stage === "shut")
      shut.push(inside(first, "INSERT INTO events (body) VALUES ('late')").catch((e: unknown) => (refused = e)));
  });
  await follow(moves);
  await expect(inside(second, "DELETE FROM events", names.filling)).rejects.toMatchObject({ code: "Unauthorized" });
  await move(moves);
  await Promise.all(shut);
  expect(refused).toBeInstanceOf(Error);
  await expectMoved();
});

it("is not begun where it was taken back before, and is ended at each of its stages", async () => {
  const ending = new AbortController();
  const early = movesThat();
  const begun = follow(early, () => {}, ending);
  ending.abort();
  await expect(begun).rejects.toThrow(/abort/);
  for (const at of ["opened", "slot", "copied", "following"] as const) {
    const left: Promise<void>[] = [];
    const moves = movesThat((stage) => {
      if (stage === at) left.push(moves.leave("a"));
    });
    const ended = await follow(moves).catch((error: unknown) => error);
    expect([at, ended instanceof Error || at === "following"]).toEqual([at, true]);
    await Promise.all(left);
    await expectNothingLeft(moves);
    expect(await databasesOf(second)).toEqual([]);
  }
  // Parked then, it has no copy in its way.
  const moves = movesThat();
  await follow(moves);
  await moves.move(tenant, secrets, { to: "db-2", epoch: 7 });
  await expectMoved();
  expect(await contents(second)).not.toEqual({});
});

describe("who is still connected when the database is closed", () => {
  it("does not stop an administrator that may neither see nor end the server's own work on it", async () => {
    await inside(
      first,
      `CREATE TABLE slow (n int) WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 0);
       INSERT INTO slow SELECT generate_series(1, 200000); DELETE FROM slow`,
    );
    await asAdministrator(first, "CREATE ROLE platform LOGIN CREATEDB CREATEROLE PASSWORD 'secret'");
    await asAdministrator(first, `GRANT ${own} TO platform WITH INHERIT TRUE, SET TRUE`);
    await asAdministrator(first, "GRANT CONNECT ON DATABASE postgres TO platform");
    await asAdministrator(first, "ALTER SYSTEM SET autovacuum_naptime = '1s'");
    await asAdministrator(first, "SELECT pg_reload_conf()");
    const atWork = () =>
      asAdministrator(
        first,
        `SELECT FROM pg_stat_activity WHERE datname IN ('${own}', '${names.moved}') AND backend_type = 'autovacuum worker'`,
      );
    const platform = { ...first.admin, user: "platform", password: "secret" };
    const asPlatform = <T>(work: (client: Client) => Promise<T>) => withConnection(platform, "postgres", work);
    try {
      await expect.poll(atWork).not.toEqual([]);
      await asPlatform((client) => closeToOthers(client, own, 0));
      expect(await atWork()).not.toEqual([]);
      await asPlatform((client) => rename(client, own, names.moved));
      await expect.poll(atWork).not.toEqual([]);
      await asPlatform((client) => rename(client, names.moved, own));
    } finally {
      await asAdministrator(first, "ALTER SYSTEM RESET autovacuum_naptime");
      await asAdministrator(first, "SELECT pg_reload_conf()");
      await asAdministrator(first, "REVOKE CONNECT ON DATABASE postgres FROM platform; DROP ROLE platform");
    }
  });

  it("may go on its own meanwhile, while another one takes its time", async () => {
    const clients = [1, 2, 3].map(() => new Client(loginOf(first)));
    const pids: number[] = [];
    for (const client of clients) {
      client.on("error", () => {});
      await client.connect();
      const { rows } = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
      pids.push(rows[0]!.pid);
    }
    const [before, , after] = clients;
    process.kill(pids[1]!, "SIGSTOP");
    let isShut = false;
    const shut = fenceAgainstAll(loginOf(first), 7, DEFAULT_BOUNDS).finally(() => (isShut = true));
    try {
      await sleep(300);
      await Promise.all([before?.end(), after?.end()]);
      const others = `SELECT FROM pg_stat_activity WHERE pid IN (${pids[0]}, ${pids[2]})`;
      await expect.poll(() => asAdministrator(first, others)).toEqual([]);
      expect(isShut).toBe(false);
    } finally {
      process.kill(pids[1]!, "SIGCONT");
    }
    await shut;
  });
});
