import { chmodSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { makeDirectory } from "./files.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { machineProblem } from "../../model/machine-problem.ts";

/** The names of what a cluster keeps in its data directory. */
export function pathsIn(dataDir: string) {
  const at = (...parts: string[]) => join(dataDir, ...parts);
  return {
    apiToken: at("api-token"),
    gatewayToken: at("gateway-token"),
    tokens: at("tokens.json"),
    audit: at("audit.jsonl"),
    demoPassword: at("demo-admin-password"),
    demoRecord: at("demo-tenants.json"),
    ports: at("ports.json"),
    cluster: at("cluster.json"),
    controllerConfig: at("controller.json"),
    controllerReady: at("controller.ready.json"),
    gatewayConfig: at("gateway.json"),
    gatewayReady: at("gateway.ready.json"),
    routes: at("routes.json"),
    certificates: at("certificates"),
    sharedCertificates: at("shared-certificates.json"),
    store: at("store.db"),
    history: at("history.db"),
    storeKey: at("store.key"),
    postgres: at("postgres"),
    postgresPassword: at("postgres.password"),
    shards: at("shards"),
    log: (name: string) => at(`${name}.log`),
  };
}
export type DataPaths = ReturnType<typeof pathsIn>;

/**
 * Makes the directory, closed to others; as root others may pass through it, since PostgreSQL's user must.
 * @throws UserError Environment
 */
export function prepareDataDirectory(dataDir: string): DataPaths {
  const root = process.getuid?.() === 0;
  const paths = pathsIn(dataDir);
  try {
    // Not by `recursive`, which tries without end where a file system, such as /proc, makes no directories.
    makeDirectory(dataDir, 0o755);
    const { mode, uid } = statSync(dataDir);
    if (uid !== process.getuid?.() || (mode & 0o1002) !== 0) {
      throw new UserError(
        "Environment",
        `${dataDir} is shared with other users: give a directory of its own with --data`,
      );
    }
    const wanted = (mode & 0o700) | (root ? 0o011 : 0);
    if ((mode & 0o777) !== wanted) chmodSync(dataDir, wanted);
    mkdirSync(paths.certificates, { recursive: true, mode: 0o700 });
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(
      "Environment",
      `cannot use ${dataDir} as the data directory: ${machineProblem(error) ?? messageOf(error)}; give another one with --data`,
    );
  }
  return paths;
}
