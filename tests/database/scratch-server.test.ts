import { once } from "node:events";
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { ScratchServer } from "../../src/database/scratch-server.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";
import { chooseUser } from "../../src/platforms/local/postgres/postgres-user.ts";
import { ensurePostgres } from "../../src/platforms/local/toolchain/toolchain.ts";

const never = new AbortController().signal;
let directory: string;
let binDir: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "scratch-"));
  await chmod(directory, 0o711);
  ({ binDir } = await ensurePostgres());
});
afterAll(() => rm(directory, { recursive: true, force: true }));

function serverOf(mostBytes: number, longestMs?: number): ScratchServer {
  const user = chooseUser(directory);
  const runAs = user ? { runAs: { uid: user.uid, gid: user.gid } } : {};
  const programs = { binDir, environment: systemEnvironment() };
  const time = longestMs === undefined ? {} : { longestMs };
  return new ScratchServer({ programs, directory, mostBytes, ...time, ...runAs });
}

it("has a server for each work in turn, and leaves nothing of it", async () => {
  const server = serverOf(1024 ** 3);
  let atOnce = 0;
  const work = () =>
    server.use(never, async (admin) => {
      atOnce += 1;
      expect(atOnce).toBe(1);
      const tables = await withConnection(admin, "postgres", async (client) => {
        await client.query("CREATE TABLE kept (a int)");
        return (await client.query("SELECT FROM pg_tables WHERE schemaname = 'public'")).rowCount;
      });
      atOnce -= 1;
      return tables;
    });
  expect(await Promise.all([work(), work()])).toEqual([1, 1]);
  expect(await readdir(directory)).toEqual([]);
});

it("ends what takes more space than there is, and says so", async () => {
  const filled = serverOf(40 * 1024 ** 2).use(never, async (admin, signal) => {
    await withConnection(admin, "postgres", async (client) => {
      const fill = client.query(
        "CREATE TABLE large AS SELECT repeat(md5(i::text), 20) FROM generate_series(1, 200000) i",
      );
      await fill;
      for (;;) {
        signal.throwIfAborted();
        await client.query("SELECT pg_sleep(0.1)");
      }
    });
  });
  await expect(filled).rejects.toMatchObject({
    code: "Environment",
    message: expect.stringContaining("40 MiB") as string,
  });
  expect(await readdir(directory)).toEqual([]);
});

/** Whoever's database it is owns what runs in it, and is no administrator. */
async function asOwner(server: ScratchServer, sql: string): Promise<void> {
  await server.use(never, async (admin) => {
    await withConnection(admin, "postgres", async (client) => {
      await client.query("CREATE ROLE owner; GRANT CREATE ON SCHEMA public TO owner; SET ROLE owner");
      await client.query("CREATE TABLE t (a text)");
      await client.query(sql);
    });
  });
}

it("counts the files that sorting takes, and lets no sort take all of the space", async () => {
  const sorting = asOwner(
    serverOf(64 * 1024 ** 2),
    "SELECT repeat(md5(i::text), 20) AS words FROM generate_series(1, 200000) i ORDER BY words",
  );
  await expect(sorting).rejects.toThrow(/temporary file size exceeds "temp_file_limit" \(16384kB\)/);
  const raised = asOwner(serverOf(64 * 1024 ** 2), "SET temp_file_limit = -1");
  await expect(raised).rejects.toThrow("permission denied");
});

it("ends what takes more space only together with what it sorts", async () => {
  const most = 52 * 1024 ** 2;
  const filled = serverOf(most).use(never, async (admin, signal) => {
    await withConnection(admin, "postgres", async (client) => {
      const rows = "SELECT repeat('x', 1000) AS words FROM generate_series(1, 12500) i";
      await client.query(`CREATE TABLE large AS ${rows}; INSERT INTO large SELECT words FROM large LIMIT 8000`);
      const { rows: sizes } = await client.query<{ bytes: string }>(
        "SELECT sum(pg_database_size(oid))::text AS bytes FROM pg_database",
      );
      expect(Number(sizes[0]?.bytes)).toBeLessThan(most);
      // It keeps its file, of 12 MiB.
      await client.query(`BEGIN; SET LOCAL work_mem = '64kB'; DECLARE kept CURSOR WITH HOLD FOR ${rows}; COMMIT`);
      await once(signal, "abort");
      signal.throwIfAborted();
    });
  });
  await expect(filled).rejects.toMatchObject({
    code: "Environment",
    message: expect.stringContaining("52 MiB") as string,
  });
});

it("refuses an owner's SQL the memory of whoever runs beside", async () => {
  const large = asOwner(serverOf(1024 ** 3), "SELECT length(repeat('x', 900000000))");
  await expect(large).rejects.toThrow("out of memory");
});

it("ends what takes longer than there is time, and says so", async () => {
  const slow = serverOf(1024 ** 3, 500).use(never, (_admin, signal) =>
    once(signal, "abort").then(() => signal.throwIfAborted()),
  );
  await expect(slow).rejects.toMatchObject({
    code: "Environment",
    message: expect.stringContaining("minutes") as string,
  });
  expect(await readdir(directory)).toEqual([]);
});

it("says what keeps it from starting", async () => {
  const server = new ScratchServer({
    programs: { binDir: "/nonexistent", environment: systemEnvironment() },
    directory,
    mostBytes: 1024 ** 3,
  });
  await expect(server.use(never, async () => {})).rejects.toMatchObject({ code: "Environment" });
});
