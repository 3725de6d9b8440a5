import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { stringify } from "yaml";
import { processTimeAt } from "../../../src/controller/usage/process-time.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { DEFAULT_RELEASE, ensureSynapse } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { freePort } from "../../../src/platforms/local/up/ports.ts";
import { until } from "../../support/patience.ts";

let directory: string;
let synapse: ChildProcess;
let address: string;
let output = "";

/** A Synapse with the listener for metrics that the chart gives to a dedicated one. */
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "synapse-shards-metrics-"));
  const port = await freePort("127.0.0.1");
  address = `127.0.0.1:${port}`;
  await writeFile(join(directory, "signing.key"), newTenantSecrets("a.example").signingKey);
  const config = {
    server_name: "a.example",
    listeners: [{ port, type: "metrics", bind_addresses: ["127.0.0.1"] }],
    enable_metrics: true,
    database: { name: "sqlite3", args: { database: join(directory, "homeserver.db") } },
    media_store_path: join(directory, "media"),
    signing_key_path: join(directory, "signing.key"),
    macaroon_secret_key: "m",
    report_stats: false,
    trusted_key_servers: [],
  };
  await writeFile(join(directory, "homeserver.yaml"), stringify(config, { version: "1.1" }));
  const { python } = await ensureSynapse(DEFAULT_RELEASE);
  const args = ["-m", "synapse.app.homeserver", "--config-path", "homeserver.yaml"];
  synapse = spawn(python, args, { cwd: directory, stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [synapse.stdout, synapse.stderr])
    stream?.on("data", (chunk) => (output = `${output}${chunk}`.slice(-4_000)));
}, 300_000);
afterAll(async () => {
  if (synapse && synapse.exitCode === null) {
    const ended = once(synapse, "exit");
    synapse.kill("SIGTERM");
    await ended;
  }
  await rm(directory, { recursive: true, force: true });
});

it("is what a Synapse says of its process", async () => {
  const first = await until(
    "it tells its metrics",
    () => processTimeAt(address),
    undefined,
    () => output,
  );
  expect(first.cpuSeconds).toBeGreaterThan(0.5);
  expect(Math.abs(first.startedAt - Date.now() / 1_000)).toBeLessThan(3_600);
  const later = await until("it takes more", async () => {
    const found = await processTimeAt(address);
    return found.cpuSeconds > first.cpuSeconds && found;
  });
  expect(later).toMatchObject({ startedAt: first.startedAt });
}, 300_000);

it("has what workers took besides", async () => {
  const own = "process_cpu_seconds_total 3.5\nprocess_start_time_seconds 1.7e9\n";
  let told = own;
  const server = createServer((_, response) => void response.end(told));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const at = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    expect(await processTimeAt(at)).toEqual({ cpuSeconds: 3.5, startedAt: 1.7e9 });
    told = `${own}# TYPE multi_synapse_workers_cpu_seconds_total counter\nmulti_synapse_workers_cpu_seconds_total 2.25\n`;
    expect(await processTimeAt(at)).toEqual({ cpuSeconds: 5.75, startedAt: 1.7e9 });
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

it("is unknown where something else answers, or leads elsewhere, or does not end", async () => {
  const answers: Record<string, (send: (text: string) => boolean) => void> = {
    other: (send) => void send("# HELP process_cpu_seconds_total x\nmy_process_cpu_seconds_total 3\n"),
    "not a number": (send) => void send("process_cpu_seconds_total NaN\nprocess_start_time_seconds 1\n"),
    endless: (send) => {
      for (let sent = 0; sent < 12; sent++) send("x".repeat(1024 ** 2));
    },
  };
  let answer = "";
  const server = createServer((_, response) => {
    if (answer === "elsewhere") response.writeHead(302, { location: `http://${address}/_synapse/metrics` }).end();
    else {
      answers[answer]?.((text) => response.write(text));
      response.end();
    }
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const at = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    for (const [given, said] of [
      ["other", "do not have process_cpu_seconds_total"],
      ["not a number", "do not have process_cpu_seconds_total"],
      ["endless", "more than 8 MiB"],
      ["elsewhere", "fetch failed"],
    ] as const) {
      answer = given;
      await expect(processTimeAt(at)).rejects.toThrow(said);
    }
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
