import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { PostgresCopies } from "../../src/database/copies.ts";
import { PostgresOwnDatabases } from "../../src/database/own-databases.ts";
import { schemaHash } from "../../src/database/online/shape.ts";
import { pgDump, type PgPrograms } from "../../src/database/pg-programs.ts";
import { restoreDump } from "../../src/database/restore-dump.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import { startRelay } from "../../src/database/tls-relay.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import { newTenantStatus, type Tenant } from "../../src/model/tenant.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";
import { ensurePostgres } from "../../src/platforms/local/toolchain/toolchain.ts";
import type { DatabaseLogin } from "../../src/ports/databases.ts";
import { Authority } from "../support/authority.ts";
import { until } from "../support/patience.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";
import { startTlsServer, TLS_BIN_DIR, type TlsServer } from "./tls-server.ts";

const never = new AbortController().signal;
const MIB = 1024 ** 2;

let programs: PgPrograms;
let directory: string;
const formerDirectory = process.env["TMPDIR"];

beforeAll(async () => {
  programs = { binDir: (await ensurePostgres()).binDir, environment: systemEnvironment() };
  // The relay's directories are in there, and nothing else.
  directory = await mkdtemp(join(tmpdir(), "relays-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));
afterEach(async () => {
  await until("no socket and no directory is left", async () => (await readdir(directory)).length === 0);
});

/** A program of PostgreSQL's that asks much and changes nothing. */
const looks = (login: DatabaseLogin) => schemaHash(programs, login, never);

describe.skipIf(!TLS_BIN_DIR)("at a PostgreSQL with TLS (needs one, such as Debian's)", () => {
  let server: TlsServer;
  let withoutTls: TestServer;
  let login: DatabaseLogin;

  beforeAll(async () => {
    [server, withoutTls] = await Promise.all([startTlsServer(), startTestServer()]);
    process.env["TMPDIR"] = directory;
    for (const role of ["clinic_a", "plain"]) {
      await asAdmin(`CREATE ROLE ${role} LOGIN PASSWORD 'pw'`);
      await asAdmin(`CREATE DATABASE ${role} OWNER ${role}`);
    }
    login = {
      ...server.admin,
      host: "localhost",
      user: "clinic_a",
      password: "pw",
      database: "clinic_a",
      sslMode: "verify-full",
      authorities: server.authority,
    };
  }, 120_000);
  afterAll(async () => {
    if (formerDirectory === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = formerDirectory;
    await Promise.all([server?.stop(), withoutTls?.stop()]);
  });

  const asAdmin = (sql: string) => withConnection(server.admin, "postgres", (client) => client.query(sql));
  const inside = (sql: string) =>
    withConnection(login, "clinic_a", async (client) => (await client.query<Record<string, unknown>>(sql)).rows);
  const activity = async (where: string) => {
    const { rows } = await asAdmin(
      `SELECT pid FROM pg_stat_activity WHERE application_name = 'synapse-shards backup' AND ${where}`,
    );
    return rows.length;
  };

  it("backs a tenant's database up and restores it by verify-full, at a server that lets nobody in without TLS", async () => {
    await inside(`
      CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (93);
      CREATE TABLE events (id bigserial PRIMARY KEY, body text);
      CREATE TABLE users (name text UNIQUE, kind text);
      CREATE TABLE e2e_one_time_keys_json (key_json text);
      INSERT INTO events (body) VALUES ('one'), ('✓')`);
    const { host, port, user, password, database, sslMode, authorities } = login;
    const args = { host, port, user, password, dbname: database, sslmode: sslMode };
    const config = { database: { name: "psycopg2", args }, synapse_shards: { database_authorities: authorities } };
    const tenant: Tenant = {
      kind: "Tenant",
      metadata: { name: "clinic-a", creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
      spec: {
        serverName: "clinic-a.example",
        release: "1.163.2",
        config: JSON.stringify(config),
        reclaimPolicy: "Retain",
      },
      status: newTenantStatus(),
    };
    const secrets = newTenantSecrets("clinic-a.example");
    const copies = new PostgresCopies(DatabaseServers.single(server.admin), programs);
    const dump = await copies.dump(tenant, secrets, collected, never);
    await inside("DELETE FROM events");
    const restore = { id: "r", epoch: 7 };
    await new PostgresOwnDatabases(programs).replace(tenant, secrets, restore, each(dump), () => {}, never);
    expect(await inside("SELECT id::int, body FROM events ORDER BY id")).toEqual([
      { id: 1, body: "one" },
      { id: 2, body: "✓" },
    ]);
  });

  it.each(["require", "verify-ca", "verify-full"])(
    "says which certificate %s refuses, and why, where another authority is named",
    async (sslMode) => {
      const { pem } = await Authority.make("CN=Somebody else");
      await expect(looks({ ...login, sslMode, authorities: pem })).rejects.toMatchObject({
        name: "UserError",
        code: "Unauthorized",
        message: expect.stringMatching(
          new RegExp(
            `^pg_dump failed: PostgreSQL at localhost:\\d+ has a certificate that sslmode ${sslMode} refuses: .*(certificate|issuer)`,
          ),
        ) as string,
      });
    },
  );

  it.each(["verify-ca", "verify-full"])(
    "trusts the authorities that everybody knows, and no others, by %s",
    (sslMode) =>
      expect(looks(without(login, { sslMode }))).rejects.toMatchObject({
        code: "Unauthorized",
        message: expect.stringContaining("refuses: ") as string,
      }),
  );

  it("compares the host's name by verify-full alone", async () => {
    const byAddress = { ...login, host: "127.0.0.1" };
    await expect(looks(byAddress)).rejects.toThrow(/sslmode verify-full refuses: .*127\.0\.0\.1/);
    for (const sslMode of ["verify-ca", "require"]) expect(await looks({ ...byAddress, sslMode })).toBeDefined();
    expect(await looks(without(byAddress, { sslMode: "require" }))).toBeDefined();
  });

  it("has allow and prefer find the way that the server wants", async () => {
    for (const sslMode of ["allow", "prefer"]) {
      expect(await looks(without(login, { sslMode }))).toBeDefined();
      const others = [
        without(login, { sslMode, user: "plain", database: "plain" }),
        { ...withoutTls.admin, database: "postgres", sslMode },
      ];
      for (const other of others) {
        expect(await looks(other)).toBeDefined();
        // We ourselves as well.
        await withConnection(other, other.database, (client) => client.query("SELECT"));
      }
    }
    await expect(looks(without(login, { user: "plain", database: "plain", sslMode: "require" }))).rejects.toThrow(
      /pg_dump failed: .*pg_hba\.conf rejects connection/,
    );
    await expect(looks(without(login, { sslMode: "disable" }))).rejects.toThrow(/no encryption/);
  });

  it.each(["require", "verify-ca", "verify-full"])("refuses a server without TLS by %s, and says so", (sslMode) =>
    expect(looks({ ...withoutTls.admin, database: "postgres", sslMode })).rejects.toMatchObject({
      code: "Environment",
      message: expect.stringMatching(
        new RegExp(`^pg_dump failed: PostgreSQL at 127.0.0.1:\\d+ has no TLS, which sslmode ${sslMode} asks for`),
      ) as string,
    }),
  );

  it("gives on what the server and the program say of a login that is refused", async () => {
    await expect(looks({ ...login, password: "wrong" })).rejects.toThrow(/password authentication failed/);
    await expect(looks({ ...login, port: 1 })).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringMatching(/^pg_dump failed: PostgreSQL at localhost:1 does not answer: /) as string,
    });
    await expect(looks({ ...login, password: "null\0byte" })).rejects.toThrow(/null bytes/);
  });

  it("carries a large table both ways, and holds the server back where nobody takes what it sends", async () => {
    const megabytes = 160;
    await inside("CREATE TABLE ballast (id int, text text)");
    await inside(
      `INSERT INTO ballast SELECT i, repeat(md5(i::text), ${MIB / 32}) FROM generate_series(1, ${megabytes}) i`,
    );
    const counted = () =>
      inside(
        "SELECT count(*)::int, sum(length(text))::bigint AS bytes, md5(string_agg(md5(text), '' ORDER BY id)) FROM ballast",
      );
    const before = await counted();
    expect(before[0]).toMatchObject({ count: megabytes, bytes: String(megabytes * MIB) });

    const kept = process.memoryUsage().arrayBuffers;
    let taken = Infinity;
    async function* held(dump: AsyncIterable<Uint8Array>) {
      for await (const chunk of dump) {
        if (taken === Infinity) {
          await until("the server waits", async () => (await activity("wait_event = 'ClientWrite'")) > 0);
          taken = (process.memoryUsage().arrayBuffers - kept) / MIB;
        }
        yield chunk;
      }
    }
    await asAdmin("CREATE DATABASE clinic_b OWNER clinic_a");
    await dumping((dump) => restoreDump(programs, { ...login, database: "clinic_b" }, held(dump), never));
    expect(taken).toBeLessThan(megabytes / 4);
    await inside("DROP TABLE ballast");
    const found = await withConnection(login, "clinic_b", async (client) => {
      await client.query("SET search_path TO public");
      return client.query<Record<string, unknown>>(
        "SELECT count(*)::int, sum(length(text))::bigint AS bytes, md5(string_agg(md5(text), '' ORDER BY id)) FROM ballast",
      );
    });
    expect(found.rows).toEqual(before);
    await asAdmin("DROP DATABASE clinic_b");
  }, 300_000);

  it("says what pg_restore says, however much of the dump it has not read", async () => {
    const garbage = Buffer.alloc(16 * MIB, "no dump ");
    await expect(restoreDump(programs, login, each([garbage, garbage]), never)).rejects.toMatchObject({
      code: "InvalidInput",
      message: expect.stringContaining("pg_restore failed: did not find magic string") as string,
    });
  });

  it("leaves neither a socket nor a connection where the program is ended half-way", async () => {
    await inside(`CREATE TABLE ballast AS SELECT i, repeat(md5(i::text), ${MIB / 32}) FROM generate_series(1, 40) i`);
    const ending = new AbortController();
    const ended = dumping(
      async (dump) => {
        await dump.next();
        expect(await readdir(directory)).toHaveLength(1);
        ending.abort();
        await collected(dump);
      },
      { signal: ending.signal },
    );
    await expect(ended).rejects.toThrow(/Premature close|aborted/);
    await until("the server has nobody left", async () => (await activity("true")) === 0);

    // The same where it is asked for no more.
    await dumping(async (dump) => {
      await dump.next();
      await dump.return();
    });
    await until("the server has nobody left", async () => (await activity("true")) === 0);
    await inside("DROP TABLE ballast");
  });

  it("lets a statement be cancelled, at a socket that nobody else can get to", async () => {
    const relay = await startRelay(login);
    try {
      expect((await stat(relay.directory)).mode & 0o777).toBe(0o700);
      expect(await readdir(relay.directory)).toEqual([`.s.PGSQL.${login.port}`]);
      const { user, password, database, port } = login;
      const client = new Client({ host: relay.directory, port, user, password, database });
      await client.connect();
      const { rows } = await client.query<{ ssl: boolean }>("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
      expect(rows).toEqual([{ ssl: true }]);
      const slept = client.query("SELECT pg_sleep(3600)").catch((error: unknown) => error);
      const backend = client as unknown as { processID: number; secretKey: number };
      const request = Buffer.alloc(16);
      for (const [index, value] of [16, 80_877_102, backend.processID].entries())
        request.writeUInt32BE(value, index * 4);
      request.writeInt32BE(backend.secretKey, 12);
      await until("it sleeps", async () => {
        const { rows: found } = await asAdmin("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        return found.length > 0;
      });
      connect(join(relay.directory, `.s.PGSQL.${port}`))
        .end(request)
        .resume();
      expect(await slept).toMatchObject({ code: "57014" });
      await client.end();
      expect(relay.problem()).toBeUndefined();
    } finally {
      await relay.close();
    }
  });

  function dumping<T>(
    use: (dump: AsyncGenerator<Uint8Array, void>) => Promise<T>,
    { signal = never } = {},
  ): Promise<T> {
    return withConnection(login, login.database, async (client) => {
      await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      const { rows } = await client.query<{ id: string }>("SELECT pg_export_snapshot() AS id");
      return use(pgDump(programs, login, rows[0]?.id ?? "", signal, ["--compress=0"]));
    });
  }
});

/** Servers that do what a real one cannot be brought to do. */
describe("at somebody who is no PostgreSQL", () => {
  const MESSAGE = Buffer.concat([
    Buffer.from([0x52, 0, 0, 0, 42, 0, 0, 0, 10]),
    Buffer.from("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
  ]);

  async function met<T>(answers: (socket: Socket) => void, use: (login: DatabaseLogin) => Promise<T>): Promise<T> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on("error", () => {}));
      answers(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    try {
      return await use({ host: "127.0.0.1", port, user: "u", password: "p", database: "d", sslMode: "require" });
    } finally {
      for (const socket of sockets) socket.destroy();
      server.close();
    }
  }

  it("takes nothing that came before TLS for the server's word", async () => {
    const asked = met((socket) => socket.once("data", () => socket.write("SE\0\0\0\u0005")), looks);
    await expect(asked).rejects.toThrow(/cannot be connected to: data came unencrypted where TLS was to begin/);
  });

  it.each([
    ["ends the connection", (socket: Socket) => socket.end(), /does not answer: Connection terminated/],
    ["sends something else", (socket: Socket) => socket.write("HTTP/1.1 400"), /what answers there is no PostgreSQL/],
    [
      "begins no TLS",
      (socket: Socket) => socket.once("data", () => socket.write("S") && socket.end()),
      /before secure TLS|does not answer/,
    ],
  ])("says what is wrong where it %s", async (_what, answers, words) => {
    await expect(met(answers, looks)).rejects.toThrow(words);
  });

  it("waits for an answer no longer than it may", async () => {
    for (const answers of [() => {}, (socket: Socket) => socket.once("data", () => socket.write("S"))])
      await met(answers, async (login) => {
        const relay = await startRelay(login, 50);
        const client = connect(join(relay.directory, `.s.PGSQL.${login.port}`));
        client.write(Buffer.from([0, 0, 0, 8, 0, 3, 0, 0]));
        await new Promise((resolve) => client.resume().once("close", resolve));
        expect(relay.problem()?.message).toMatch(/does not answer: timeout of 0\.05 seconds/);
        await relay.close();
      });
  });

  it.runIf(process.platform === "linux")("looks whether a server is there that says nothing", async () => {
    let timers: string[] = [];
    const answers = (socket: Socket) => {
      // An error, which is an answer.
      socket.once("data", () => socket.write(Buffer.from("E\0\0\0\u0005\0")));
    };
    await met(answers, async (login) => {
      const relay = await startRelay({ ...login, sslMode: "disable" });
      const client = connect(join(relay.directory, `.s.PGSQL.${login.port}`));
      client.write(Buffer.from([0, 0, 0, 8, 0, 3, 0, 0]));
      await new Promise((resolve) => client.once("data", resolve));
      const remote = `0100007F:${login.port.toString(16).toUpperCase().padStart(4, "0")}`;
      const sockets = (await readFile("/proc/net/tcp", "utf8")).split("\n").map((line) => line.trim().split(/\s+/));
      timers = sockets.filter((of) => of[2] === remote && of[3] === "01").map((of) => of[5]?.slice(0, 2) ?? "");
      client.destroy();
      await relay.close();
    });
    // 02: of keepalive (Linux, Documentation/networking/proc_net_tcp.rst).
    expect(timers).toEqual(["02"]);
  });

  it("takes logins that are bound to TLS out of what is offered, also where that comes byte by byte", async () => {
    let connections = 0;
    const answers = (socket: Socket) => {
      connections += 1;
      if (connections === 1) return void socket.once("data", () => socket.write("N"));
      const say = async () => {
        for (const byte of MESSAGE) {
          socket.write(Buffer.from([byte]));
          await new Promise(setImmediate);
        }
        socket.end(Buffer.from("untouched PLUS"));
      };
      socket.once("data", () => void say());
    };
    await met(answers, async (login) => {
      const relay = await startRelay({ ...login, sslMode: "prefer" });
      const client = connect(join(relay.directory, `.s.PGSQL.${login.port}`));
      client.write(Buffer.from([0, 0, 0, 8, 0, 3, 0, 0]));
      let got = "";
      for await (const chunk of client) got += (chunk as Buffer).toString("latin1");
      expect(got).toBe("R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0untouched PLUS");
      await relay.close();
    });
  });
});

async function collected(bytes: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return chunks;
}

async function* each(chunks: Uint8Array[]): AsyncGenerator<Uint8Array, void, undefined> {
  for (const chunk of chunks) yield chunk;
}

/** As nobody has named authorities. */
function without(login: DatabaseLogin, more: Partial<DatabaseLogin>): DatabaseLogin {
  const { authorities: _authorities, ...known } = login;
  return { ...known, ...more };
}
