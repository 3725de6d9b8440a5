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

function serverOf(mostBytes: number): ScratchServer {
  const user = chooseUser(directory);
  const runAs = user ? { runAs: { uid: user.uid, gid: user.gid } } : {};
  return new ScratchServer({ programs: { binDir, environment: systemEnvironment() }, directory, mostBytes, ...runAs });
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

it("says what keeps it from starting", async () => {
  const server = new ScratchServer({
    programs: { binDir: "/nonexistent", environment: systemEnvironment() },
    directory,
    mostBytes: 1024 ** 3,
  });
  await expect(server.use(never, async () => {})).rejects.toMatchObject({ code: "Environment" });
});
