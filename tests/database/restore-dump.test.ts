import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { contentsOf, differences, type Contents } from "../../src/database/contents.ts";
import { OF_SYNAPSE, pgDump, pgScript, type PgPrograms } from "../../src/database/pg-programs.ts";
import { restoreDump } from "../../src/database/restore-dump.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";
import { ensurePostgres } from "../../src/platforms/local/toolchain/toolchain.ts";
import type { Bytes } from "../../src/ports/backups.ts";
import type { DatabaseLogin } from "../../src/ports/databases.ts";
import { until } from "../support/patience.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";
import { TLS_BIN_DIR } from "./tls-server.ts";

const never = new AbortController().signal;
/** What cuts a script in wrong places where it is read line by line. */
const TRAP =
  "\n\n--\n-- Name: x; Type: TABLE; Schema: public; Owner: -\n--\n\nSET transaction_timeout = 0;\nCOPY a FROM stdin;\n";

let programs: PgPrograms;
let ours: TestServer;
beforeAll(async () => {
  programs = { binDir: (await ensurePostgres()).binDir, environment: systemEnvironment() };
  ours = await startTestServer();
  await prepare(ours);
}, 120_000);
afterAll(() => ours?.stop());

async function prepare({ admin }: TestServer): Promise<void> {
  await withConnection(admin, "postgres", async (client) => {
    await client.query("CREATE ROLE clinic_a LOGIN PASSWORD 'pw'");
    for (const name of ["clinic_a", "restored"]) await client.query(`CREATE DATABASE ${name} OWNER clinic_a`);
  });
  await inside(loginOf({ admin }), [
    "CREATE TABLE events (id bigserial PRIMARY KEY, body text, at timestamptz DEFAULT now())",
    "INSERT INTO events (body) SELECT E'one\\\\two\\t\\n\\\\.\\n✓' FROM generate_series(1, 500)",
    "ALTER TABLE events ALTER COLUMN body SET (n_distinct = -0.5)",
    "CREATE INDEX events_body ON events (lower(body)) WHERE id > 3",
    `CREATE TABLE "odd ""${TRAP}" (text text DEFAULT 'it''s ${TRAP}', escaped text DEFAULT E'\\\\ it''s ${TRAP}')`,
    `INSERT INTO "odd ""${TRAP}" DEFAULT VALUES`,
    `CREATE FUNCTION old() RETURNS text LANGUAGE sql AS $_$${TRAP} SELECT '$$' $_$`,
    "CREATE FUNCTION newer(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + 1; SELECT a + 2; END",
    `COMMENT ON TABLE events IS 'it''s ${TRAP}'`,
    "CREATE VIEW seen AS SELECT body || E'\\\\' AS body FROM events",
    "SELECT lo_from_bytea(4242, 'large')",
    "CREATE SCHEMA beside CREATE TABLE fence (epoch bigint)",
    "INSERT INTO beside.fence VALUES (3)",
  ]);
}

function loginOf({ admin }: Pick<TestServer, "admin">, database = "clinic_a"): DatabaseLogin {
  return { ...admin, user: "clinic_a", password: "pw", database };
}

function inside(login: DatabaseLogin, statements: string[]): Promise<void> {
  return withConnection(login, login.database, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

function dumping<T>(login: DatabaseLogin, use: (dump: Bytes, contents: Contents) => Promise<T>): Promise<T> {
  return withConnection(login, login.database, async (client) => {
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const { rows } = await client.query<{ id: string }>("SELECT pg_export_snapshot() AS id");
    const contents = await contentsOf(client);
    return use(pgDump(programs, login, rows[0]?.id ?? "", never), contents);
  });
}

const contentsIn = (login: DatabaseLogin) => withConnection(login, login.database, (client) => contentsOf(client));
/** What the owner has written, as the server says it. */
const writtenIn = (login: DatabaseLogin) =>
  withConnection(login, login.database, async (client) => {
    const { rows } = await client.query<{ text: string }>(
      `SELECT p.prosrc AS text FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND prosqlbody IS NULL
       UNION ALL SELECT pg_get_functiondef('newer'::regproc)
       UNION ALL SELECT relname FROM pg_class WHERE relname LIKE 'odd%'
       UNION ALL SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
       UNION ALL SELECT max(body) FROM seen
       UNION ALL SELECT pg_get_indexdef('events_body'::regclass)
       UNION ALL SELECT obj_description('events'::regclass)
       UNION ALL SELECT option FROM pg_attribute, unnest(attoptions) option WHERE attrelid = 'events'::regclass AND option NOT LIKE 'pg_attver=%'
       UNION ALL SELECT encode(lo_get(4242), 'escape') ORDER BY 1`,
    );
    return rows.map(({ text }) => text);
  });

async function expectBrought(from: TestServer, to: TestServer): Promise<void> {
  const into = loginOf(to, "restored");
  const expected = await dumping(loginOf(from), async (dump, contents) => {
    await restoreDump(programs, into, dump, never);
    return contents;
  });
  expect(differences(expected, await contentsIn(into))).toEqual([]);
  expect(await writtenIn(into)).toEqual(await writtenIn(loginOf(from)));
  await withConnection(to.admin, "postgres", async (client) => {
    await client.query("DROP DATABASE restored");
    await client.query("CREATE DATABASE restored OWNER clinic_a");
  });
}

it("brings all of a database into another one, as it was written", () => expectBrought(ours, ours));

describe.skipIf(!TLS_BIN_DIR)("with a server of another version (needs one, such as Debian's)", () => {
  let other: TestServer;
  beforeAll(async () => {
    other = await startTestServer(TLS_BIN_DIR);
    await prepare(other);
  }, 120_000);
  afterAll(() => other?.stop());

  it("brings a database there, whatever that server does not know", () => expectBrought(ours, other));
  it("brings a database from there", () => expectBrought(other, ours));
});

it("reads a dump to its end, also where what is there is not asked for", async () => {
  await inside(loginOf(ours), [
    "CREATE TABLE beside.ballast AS SELECT i, md5(i::text) || md5((-i)::text) AS text FROM generate_series(1, 100000) i",
  ]);
  let read = 0;
  async function* counted(dump: Bytes, fails = false): Bytes {
    read = 0;
    for await (const chunk of dump) {
      read += chunk.length;
      yield chunk;
    }
    if (fails) throw new Error("the hash is another one");
  }
  const script = async (dump: Bytes) => {
    let text = "";
    for await (const chunk of pgScript(programs, dump, never, OF_SYNAPSE)) text += Buffer.from(chunk).toString();
    return text;
  };
  const all = await dumping(loginOf(ours), async (dump) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of dump) chunks.push(chunk);
    return Buffer.concat(chunks);
  });
  async function* slices(): Bytes {
    for (let at = 0; at < all.length; at += 10_000) yield all.subarray(at, at + 10_000);
  }
  for (let time = 0; time < 3; time++) {
    const text = await script(counted(slices()));
    expect(text).toContain("public.events");
    expect(text).not.toContain("ballast");
    expect(read).toBe(all.length);
  }
  await expect(script(counted(slices(), true))).rejects.toThrow("the hash is another one");
});

it("says what a server does not take, and where", async () => {
  const into = loginOf(ours, "taken");
  await withConnection(ours.admin, "postgres", (client) => client.query("CREATE DATABASE taken OWNER clinic_a"));
  await inside(into, ["CREATE TABLE events (id int)"]);
  await expect(dumping(loginOf(ours), (dump) => restoreDump(programs, into, dump, never))).rejects.toMatchObject({
    code: "InvalidInput",
    message: expect.stringMatching(/relation "events" already exists, at: CREATE TABLE public\.events/) as string,
  });
});

it("ends in the midst of a statement when it is told to", async () => {
  await inside(loginOf(ours), [
    "CREATE FUNCTION slow(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN a; END'",
    "CREATE TABLE numbers AS SELECT 1 AS id",
    "CREATE INDEX numbers_slow ON numbers (slow(id))",
    "CREATE OR REPLACE FUNCTION slow(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1000); RETURN a; END'",
  ]);
  await withConnection(ours.admin, "postgres", (client) => client.query("CREATE DATABASE ended OWNER clinic_a"));
  const ending = new AbortController();
  const ended = dumping(loginOf(ours), (dump) => restoreDump(programs, loginOf(ours, "ended"), dump, ending.signal));
  ended.catch(() => {});
  await until("the index is made", () =>
    withConnection(ours.admin, "postgres", async (client) => {
      const sql =
        "SELECT FROM pg_stat_activity WHERE datname = 'ended' AND query LIKE 'CREATE INDEX%' AND wait_event = 'PgSleep'";
      return (await client.query(sql)).rowCount === 1;
    }),
  );
  ending.abort(new Error("it is over"));
  await expect(ended).rejects.toThrow("it is over");
});
