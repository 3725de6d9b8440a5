import { existsSync, readdirSync, statSync } from "node:fs";
import { chown, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { withConnection } from "../../src/database/connection.ts";
import { Authority } from "../support/authority.ts";
import { until } from "../support/patience.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";

const DISTRIBUTIONS = "/usr/lib/postgresql";

/** Of a PostgreSQL that was built with TLS, as a distribution's is; ours was not. Undefined where there is none. */
export const TLS_BIN_DIR = (existsSync(DISTRIBUTIONS) ? readdirSync(DISTRIBUTIONS) : [])
  .toSorted((a, b) => Number(b) - Number(a))
  .map((version) => join(DISTRIBUTIONS, version, "bin"))
  .find((binDir) => existsSync(join(binDir, "postgres")));

/** Whom pg_hba.conf lets in: `plain` without TLS alone, all others with it. */
const RULES = `
hostssl   all plain all reject
hostnossl all plain all scram-sha-256
hostssl   all all   all scram-sha-256
hostnossl all all   all reject
`;

export interface TlsServer extends TestServer {
  /** What its certificate is verified by; it is for `localhost` alone. */
  authority: string;
}

export async function startTlsServer(): Promise<TlsServer> {
  const server = await startTestServer(TLS_BIN_DIR);
  const { dataDir, admin } = server;
  const authority = await Authority.make();
  const { key, certificate } = await authority.issue(["localhost"]);
  const { uid, gid } = statSync(dataDir);
  for (const [name, content] of Object.entries({ "server.key": key, "server.crt": certificate })) {
    await writeFile(join(dataDir, name), content, { mode: 0o600 });
    await chown(join(dataDir, name), uid, gid);
  }
  const rules = join(dataDir, "pg_hba.conf");
  await writeFile(rules, RULES);
  await withConnection(admin, "postgres", async (client) => {
    await client.query("ALTER SYSTEM SET ssl = on");
    await client.query("SELECT pg_reload_conf()");
  });
  const encrypted = { ...admin, sslMode: "require" };
  await until("the server speaks TLS, and nothing else", async () => {
    await withConnection(encrypted, "postgres", (client) => client.query("SELECT"));
    const isRefused = await withConnection(admin, "postgres", () => Promise.resolve()).catch(() => true);
    return isRefused;
  });
  return { ...server, admin: encrypted, authority: authority.pem };
}
