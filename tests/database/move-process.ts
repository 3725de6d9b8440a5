/** Moves a database in a process of its own, which a test ends in the midst of it. */
import type { AdminLogin } from "../../src/database/connection.ts";
import { PostgresMoves } from "../../src/database/moves.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import type { TenantSecretData } from "../../src/model/tenant-secrets.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";

const input = JSON.parse(process.argv[2] ?? "") as {
  first: AdminLogin;
  second: AdminLogin;
  binDir: string;
  tenant: Tenant;
  secrets: TenantSecretData;
};
const servers = new DatabaseServers([
  { name: "main", weight: 1, login: input.first },
  { name: "db-2", weight: 1, login: input.second },
]);
await new PostgresMoves(servers, { binDir: input.binDir, environment: systemEnvironment() }).move(
  input.tenant,
  input.secrets,
  { to: "db-2", epoch: 5 },
);
