import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runningServer } from "../../src/platforms/local/postgres/postgres-process.ts";
import { Cluster } from "./support/cluster.ts";

/** Each of them breaks something, were it believed. */
const HOSTILE = {
  PGSSLMODE: "verify-full",
  PGOPTIONS: "-c statement_timeout=1",
  PGSERVICE: "nowhere",
  PGHOST: "192.0.2.1",
  PGUSER: "somebody",
  PYTHONHOME: "/nonexistent",
  PYTHONPATH: "/nonexistent",
  PYTHONUTF8: "0",
  PYTHONSTARTUP: "/nonexistent",
  PYTHONWARNINGS: "error",
  LANG: "de_DE.ISO-8859-1",
  LC_ALL: "de_DE.ISO-8859-1",
  NODE_OPTIONS: "--max-http-header-size=300",
  NODE_TLS_REJECT_UNAUTHORIZED: "0",
  NODE_USE_ENV_PROXY: "1",
  LD_LIBRARY_PATH: "/nonexistent",
  PIP_TARGET: "/nonexistent",
  http_proxy: "http://192.0.2.1:9",
  https_proxy: "http://192.0.2.1:9",
  HTTP_PROXY: "http://192.0.2.1:9",
  SYNAPSE_CONFIG_PATH: "/nonexistent",
};
/** Of these the parts that install releases know; no client of ours uses them. */
const FOR_DOWNLOADS = ["http_proxy", "https_proxy", "HTTP_PROXY"];

let cluster: Cluster;
beforeAll(async () => void (cluster = await Cluster.start({}, HOSTILE)));
afterAll(() => cluster?.destroy());

async function environmentOf(pid: number): Promise<Record<string, string>> {
  const text = await readFile(`/proc/${pid}/environ`, "utf8");
  const pairs = text.split("\0").filter((entry) => entry !== "");
  return Object.fromEntries(
    pairs.map((entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)]),
  );
}

it("runs tenants in a hostile environment, of which nothing reaches a process", async () => {
  await cluster.createTenant("clinic-a");
  await cluster.createTenant("clinic-b");
  const { shard } = await cluster.tenant("clinic-a");
  const postgres = await runningServer(join(cluster.dataDir, "postgres"));
  const pids = {
    shard: await cluster.shardPid(shard!),
    controller: await cluster.processPid("controller"),
    gateway: await cluster.processPid("gateway"),
    postgres: postgres!.pid,
  };
  for (const [part, pid] of Object.entries(pids)) {
    const environment = await environmentOf(pid);
    for (const [name, value] of Object.entries(HOSTILE)) {
      if (FOR_DOWNLOADS.includes(name) && (part === "controller" || part === "gateway")) continue;
      expect([part, name, environment[name]]).not.toEqual([part, name, value]);
    }
  }
  const python = await environmentOf(pids.shard);
  expect(python).toMatchObject({ PYTHONUTF8: "1", LC_ALL: "C.UTF-8", PYTHONSAFEPATH: "1" });
});
