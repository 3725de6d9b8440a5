/** Moves a database, as it is or copied while its tenant runs, in a process of its own, which a test or a stage ends in the midst of it. */
import type { AdminLogin } from "../../src/database/connection.ts";
import { PostgresMoves } from "../../src/database/moves.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import type { TenantSecretData } from "../../src/model/tenant-secrets.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";

const { first, second, binDir, tenant, secrets, epoch, online, stage } = JSON.parse(process.argv[2] ?? "") as {
  first: AdminLogin;
  second: AdminLogin;
  binDir: string;
  tenant: Tenant;
  secrets: TenantSecretData;
  epoch: number;
  online?: true;
  stage?: string;
};
const servers = new DatabaseServers([
  { name: "main", weight: 1, login: first },
  { name: "db-2", weight: 1, login: second },
]);
const moves = new PostgresMoves(servers, { binDir, environment: systemEnvironment() }, (reached) => {
  if (reached === stage) process.kill(process.pid, "SIGKILL");
});
if (online)
  await moves.follow(tenant, secrets, { to: "db-2", onProgress: () => {}, signal: new AbortController().signal });
await moves.move(tenant, secrets, { to: "db-2", epoch, ...(online ? { online } : {}) });
if (online) process.exit(0);
