/** Copies a database while its tenant runs, and moves it, in a process of its own, which a test ends in the midst of it. */
import type { AdminLogin } from "../../../src/database/connection.ts";
import { PostgresMoves } from "../../../src/database/moves.ts";
import { DatabaseServers } from "../../../src/database/servers.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import type { TenantSecretData } from "../../../src/model/tenant-secrets.ts";
import { systemEnvironment } from "../../../src/platforms/local/environment.ts";

const input = JSON.parse(process.argv[2] ?? "") as {
  first: AdminLogin;
  second: AdminLogin;
  binDir: string;
  tenant: Tenant;
  secrets: TenantSecretData;
  stage: string;
};
const servers = new DatabaseServers([
  { name: "main", weight: 1, login: input.first },
  { name: "db-2", weight: 1, login: input.second },
]);
const { tenant, secrets } = input;
const programs = { binDir: input.binDir, environment: systemEnvironment() };
const moves = new PostgresMoves(servers, programs, (stage) => {
  if (stage === input.stage) process.kill(process.pid, "SIGKILL");
});
await moves.follow(tenant, secrets, { to: "db-2", onProgress: () => {}, signal: new AbortController().signal });
await moves.move(tenant, secrets, { to: "db-2", epoch: 7, online: true });
process.exit(0);
