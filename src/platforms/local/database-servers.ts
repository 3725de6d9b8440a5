import { readFileSync } from "node:fs";
import type { AdminLogin } from "../../database/connection.ts";
import { DatabaseServers, type DatabaseServer, type Recorded } from "../../database/servers.ts";
import { OWN_SERVER, type DatabaseServerConfig } from "../../model/database-servers.ts";
import { messageOf, UserError } from "../../model/errors.ts";

/** The cluster's own server first, then those of the configuration. @throws UserError Environment where a password cannot be read */
export function databaseServers(
  own: AdminLogin,
  asked: readonly DatabaseServerConfig[],
  recorded?: (storage: string) => Recorded | undefined,
): DatabaseServers {
  const { weight = 1, maxDatabases } = asked.find(({ name }) => name === OWN_SERVER) ?? {};
  const main: DatabaseServer = { name: OWN_SERVER, weight, maxDatabases, login: own };
  return new DatabaseServers([main, ...asked.filter(({ name }) => name !== OWN_SERVER).map(toServer)], recorded);
}

function toServer(config: DatabaseServerConfig): DatabaseServer {
  const { name, host = "", port, user, passwordFile = "", database, sslMode, weight, maxDatabases } = config;
  try {
    const password = readFileSync(passwordFile, "utf8").trim();
    return { name, weight, maxDatabases, login: { host, port, user, password, database, sslMode } };
  } catch (error) {
    const why = `databaseServers, ${name}: the password of ${user} cannot be read: ${messageOf(error)}`;
    throw new UserError("Environment", why, { cause: error });
  }
}
