import { readFileSync } from "node:fs";
import { z } from "zod";
import type { ClusterConfig } from "../../../model/cluster-config.ts";
import { UserError } from "../../../model/errors.ts";
import { writeAtomically } from "../files.ts";
import { freePort, isFree, whyTaken } from "./ports.ts";

const PortsSchema = z.object({
  http: z.int(),
  https: z.int(),
  metrics: z.int(),
  api: z.int(),
  admin: z.int().optional(),
});
export type ClusterPorts = z.infer<typeof PortsSchema>;

const LOOPBACK = "127.0.0.1";

/**
 * The ports of the cluster's parts. A port that the configuration leaves open (0) is chosen once and kept in `file`: tenants, clients
 * and a gateway that outlives the controller know it.
 * @throws UserError Environment that names the port which is taken, and its setting
 */
export async function choosePorts(config: ClusterConfig, file: string): Promise<ClusterPorts> {
  const last = readPorts(file);
  const taken = new Set<number>();
  const choose = async (host: string, wished: number, before: number | undefined, setting: string): Promise<number> => {
    const port = wished === 0 ? await openPort(host, before, taken) : wished;
    const problem = wished === 0 ? undefined : taken.has(port) ? "EADDRINUSE" : await whyTaken(host, port);
    if (problem !== undefined) throw taken.has(port) ? twice(port, setting) : refused(problem, host, port, setting);
    taken.add(port);
    return port;
  };
  const { gateway, api } = config;
  const { adminAccess } = gateway;
  const ports: ClusterPorts = {
    http: await choose(gateway.host, gateway.port, last.http, "gateway.port"),
    https: await choose(gateway.host, gateway.tlsPort, last.https, "gateway.tlsPort"),
    api: await choose(api.host, api.port, last.api, "api.port"),
    metrics: await choose(LOOPBACK, 0, last.metrics, ""),
    ...(adminAccess
      ? { admin: await choose(adminAccess.host, adminAccess.port, last.admin, "gateway.adminAccess.port") }
      : {}),
  };
  writeAtomically(file, JSON.stringify(ports));
  return ports;
}

async function openPort(host: string, before: number | undefined, taken: Set<number>): Promise<number> {
  if (before && !taken.has(before) && (await isFree(host, before))) return before;
  for (;;) {
    const port = await freePort(host);
    if (!taken.has(port)) return port;
  }
}

function twice(port: number, setting: string): UserError {
  return new UserError(
    "InvalidConfig",
    `${setting}: port ${port} is given to two parts of the cluster; each needs one of its own`,
  );
}

function refused(problem: string, host: string, port: number, setting: string): UserError {
  const hostSetting = setting.replace(/\.\w+$/, ".host");
  if (problem === "EADDRNOTAVAIL" || problem === "ENOTFOUND") {
    return new UserError(
      "Environment",
      `${host} is not an address of this machine: set ${hostSetting} in the configuration file to one that is`,
    );
  }
  const why = problem === "EADDRINUSE" ? "is in use by another program" : `cannot be listened on (${problem})`;
  const free = String(port === 65535 ? port - 1 : port + 1);
  const how = setting.split(".").reduceRight((value, key) => `${key}: ${value === free ? free : `{ ${value} }`}`, free);
  return new UserError(
    "Environment",
    `port ${port} of ${host} ${why}: stop that program, or set ${setting} to another port in the file given with --config, e.g. ${how}`,
  );
}

function readPorts(file: string): Partial<ClusterPorts> {
  try {
    return PortsSchema.partial().parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return {};
  }
}
