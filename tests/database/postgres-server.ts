import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AdminLogin, withConnection } from "../../src/database/connection.ts";
import { startPostgres } from "../../src/platforms/local/postgres/postgres.ts";
import { ensurePostgres } from "../../src/platforms/local/toolchain/toolchain.ts";

export interface TestServer {
  admin: AdminLogin;
  dataDir: string;
  /** All that the server has logged; every statement is. */
  log(): Promise<string>;
  stop(): Promise<void>;
}

/** A PostgreSQL server of its own, which logs every statement and is gone after `stop`. @param from where another one is than ours */
export async function startTestServer(from?: string): Promise<TestServer> {
  const binDir = from ?? (await ensurePostgres()).binDir;
  const directory = await mkdtemp(join(tmpdir(), "synapse-shards-database-"));
  // The server's user, if it is another one, has to get through to its data.
  await chmod(directory, 0o711);
  const logFile = join(directory, "log");
  const server = await startPostgres({ dataDir: join(directory, "data"), binDir, logFile });
  const { host, port, adminUser: user, adminPassword: password } = server;
  const admin = { host, port, user, password };
  await withConnection(admin, "postgres", async (client) => {
    for (const setting of ["log_statement = 'all'", "fsync = off"]) await client.query(`ALTER SYSTEM SET ${setting}`);
    await client.query("SELECT pg_reload_conf()");
  });
  return {
    admin,
    dataDir: server.dataDir,
    log: () => readFile(logFile, "utf8"),
    stop: async () => {
      await server.stop();
      await rm(server.dataDir, { recursive: true, force: true });
      await rm(directory, { recursive: true, force: true });
    },
  };
}
