import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { processesWith } from "../../../src/platforms/local/up/node-process.ts";
import { runningServer, stopServer } from "../../../src/platforms/local/postgres/postgres-process.ts";
import { DEFAULT_RELEASE, ensurePostgres, ensureSynapse } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { PATIENCE_MS } from "../../support/patience.ts";
import { temporaryDirectory } from "./support.ts";

const MAIN = resolve(import.meta.dirname, "../../../src/cli/main.ts");
const MINUTES_3 = 180_000;

beforeAll(async () => {
  await ensureSynapse(DEFAULT_RELEASE);
  await ensurePostgres();
}, 600_000);

interface Up {
  process: ChildProcess;
  output(): string;
  ready(): Promise<void>;
  ended(): Promise<number | null>;
}

/** `synapse-shards up` without tenants, on any free ports. */
function up(dataDir: string, config = "gateway: {port: 0, tlsPort: 0}\napi: {port: 0}\n"): Up {
  const file = join(dataDir, "..", "cluster.yaml");
  writeFileSync(file, config);
  const child = spawn(process.execPath, [MAIN, "up", "--config", file, "--data", dataDir], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  const ended = async () =>
    child.exitCode === null && child.signalCode === null ? (await once(child, "close"))[0] : child.exitCode;
  onTestFinished(async () => {
    child.kill("SIGINT");
    await ended();
    const server = await runningServer(join(dataDir, "postgres"));
    if (server) await stopServer(server.pid, join(dataDir, "postgres"), () => {});
  });
  return {
    process: child,
    output: () => output,
    ended,
    ready: async () => {
      for (const deadline = Date.now() + 120_000; !output.includes("Press Ctrl-C"); await sleep(50)) {
        if (child.exitCode !== null || Date.now() > deadline) throw new Error(`up did not come up: ${output}`);
      }
    },
  };
}

function clusterFile(dataDir: string): { apiUrl: string; tokenFile: string; pid: number; gateway: { http: string } } {
  return JSON.parse(readFileSync(join(dataDir, "cluster.json"), "utf8"));
}

async function status(dataDir: string): Promise<number> {
  const { apiUrl, tokenFile } = clusterFile(dataDir);
  const response = await fetch(`${apiUrl}/v1/status`, {
    headers: { authorization: `Bearer ${readFileSync(tokenFile, "utf8").trim()}` },
  });
  return response.status;
}

async function statusOf(dataDir: string): Promise<{ policy: Record<string, number>; problems: string[] }> {
  return (await (await call(dataDir, "/v1/status")).json()) as { policy: Record<string, number>; problems: string[] };
}

async function create(dataDir: string, name: string, config: string): Promise<{ status: number; message?: string }> {
  const response = await call(dataDir, "/v1/tenants", { name, config });
  const body = (await response.json()) as { error?: { message: string } };
  return { status: response.status, message: body.error?.message };
}

function call(dataDir: string, path: string, body?: object): Promise<Response> {
  const { apiUrl, tokenFile } = clusterFile(dataDir);
  const authorization = `Bearer ${readFileSync(tokenFile, "utf8").trim()}`;
  if (body === undefined) return fetch(`${apiUrl}${path}`, { headers: { authorization } });
  const headers = { authorization, "content-type": "application/json" };
  return fetch(`${apiUrl}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
}

async function leftBehind(dataDir: string): Promise<unknown[]> {
  const server = await runningServer(join(dataDir, "postgres"));
  return [
    ...processesWith(join(dataDir, "controller.json")),
    ...processesWith(join(dataDir, "gateway.json")),
    ...(server ? [server] : []),
  ];
}

/** The database, the controller, the gateway, and the process that waits to be the next gateway. */
async function allParts(dataDir: string): Promise<unknown[]> {
  await expect.poll(async () => (await leftBehind(dataDir)).length, { timeout: PATIENCE_MS }).toBe(4);
  return leftBehind(dataDir);
}

test("Ctrl-C stops everything, in order, though npm says it twice", { timeout: MINUTES_3 }, async () => {
  // Prevents: processes that stay behind; a stop that is cut short because one key press arrives as two signals.
  const dataDir = join(await temporaryDirectory(), "data");
  const cluster = up(dataDir);
  await cluster.ready();
  expect(await status(dataDir)).toBe(200);
  await allParts(dataDir);
  cluster.process.kill("SIGINT");
  cluster.process.kill("SIGINT");
  expect(await cluster.ended()).toBe(0);
  const output = cluster.output();
  const steps = ["Stopping the gateway", "Stopping the shards and the controller", "Stopping PostgreSQL"];
  const places = steps.map((step) => output.indexOf(step));
  expect(places.every((place) => place > 0)).toBe(true);
  expect(places).toEqual(places.toSorted((a, b) => a - b));
  expect(await leftBehind(dataDir)).toEqual([]);
  expect(existsSync(join(dataDir, "cluster.json"))).toBe(false);
});

test("secrets are the owner's alone, and nobody can list the data", { timeout: MINUTES_3 }, async () => {
  // Prevents: tokens that other users of the machine can read.
  const dataDir = join(await temporaryDirectory(), "data");
  const cluster = up(dataDir);
  await cluster.ready();
  for (const file of ["api-token", "gateway-token", "ca.key", "postgres.password", "controller.json", "store.db"]) {
    expect([file, statSync(join(dataDir, file)).mode & 0o077]).toEqual([file, 0]);
  }
  expect(statSync(dataDir).mode & 0o066).toBe(0);
  for (const file of ["api-token", "gateway-token", "postgres.password"]) {
    const secret = readFileSync(join(dataDir, file), "utf8").trim();
    for (const log of ["controller.log", "gateway.log", "postgres.log", "controller.json", "gateway.json"]) {
      expect(readFileSync(join(dataDir, log), "utf8")).not.toContain(secret);
    }
    expect(cluster.output()).not.toContain(secret);
  }
});

test("a second cluster on the same data is refused", { timeout: MINUTES_3 }, async () => {
  // Prevents: two controllers that both think the tenants are theirs.
  const dataDir = join(await temporaryDirectory(), "data");
  const first = up(dataDir);
  await first.ready();
  const second = up(dataDir);
  expect(await second.ended()).toBe(1);
  expect(second.output()).toContain(`process ${first.process.pid}`);
  expect(await status(dataDir)).toBe(200);
});

test("parts that are killed come back", { timeout: MINUTES_3 }, async () => {
  // Prevents: a cluster that is up in name only after a crash of its controller, gateway or database.
  const dataDir = join(await temporaryDirectory(), "data");
  const cluster = up(dataDir);
  await cluster.ready();
  const pidOf = (file: string) => (JSON.parse(readFileSync(join(dataDir, file), "utf8")) as { pid: number }).pid;
  const before = clusterFile(dataDir);
  process.kill((await runningServer(join(dataDir, "postgres")))!.pid, "SIGKILL");
  process.kill(pidOf("controller.ready.json"), "SIGKILL");
  process.kill(pidOf("gateway.ready.json"), "SIGKILL");
  const back = (title: string) => cluster.output().includes(`${title} runs again`);
  for (
    const deadline = Date.now() + 90_000;
    !["PostgreSQL", "the controller", "the gateway"].every(back);
    await sleep(50)
  ) {
    if (Date.now() > deadline) throw new Error(cluster.output());
  }
  expect(clusterFile(dataDir)).toEqual(before);
  expect(await status(dataDir)).toBe(200);
  // 503 until it has routes, then it knows that there is no such host.
  const answer = async () => (await fetch(`${before.gateway.http}/_matrix/client/versions`)).status;
  await expect.poll(answer).toBe(404);
});

test(
  "after kill -9 its parts end automatically, and the next cluster goes on from there",
  { timeout: MINUTES_3 },
  async () => {
    // Prevents: a controller without a master beside a new one; ports held by a gateway nobody knows of.
    const dataDir = join(await temporaryDirectory(), "data");
    const first = up(dataDir);
    await first.ready();
    const before = clusterFile(dataDir);
    const database = await runningServer(join(dataDir, "postgres"));
    first.process.kill("SIGKILL");
    await first.ended();
    const second = up(dataDir);
    await second.ready();
    expect({ ...clusterFile(dataDir), pid: 0 }).toEqual({ ...before, pid: 0 });
    expect(await runningServer(join(dataDir, "postgres"))).toEqual(database);
    expect(processesWith(join(dataDir, "controller.json"))).toHaveLength(1);
    await expect.poll(() => processesWith(join(dataDir, "gateway.json")), { timeout: PATIENCE_MS }).toHaveLength(2);
  },
);

test("a port that is taken is named, and nothing is left running", { timeout: MINUTES_3 }, async () => {
  // Prevents: half a cluster behind a cryptic message.
  const dataDir = join(await temporaryDirectory(), "data");
  const thief = createServer();
  onTestFinished(() => void thief.close());
  await new Promise<void>((done) => thief.listen(0, "127.0.0.1", done));
  const { port } = thief.address() as { port: number };
  const cluster = up(dataDir, `gateway: {port: ${port}, tlsPort: 0}\napi: {port: 0}\n`);
  expect(await cluster.ended()).toBe(1);
  expect(cluster.output()).toContain(`port ${port} of 127.0.0.1 is in use by another program`);
  expect(cluster.output()).toContain("gateway.port");
  expect(await leftBehind(dataDir)).toEqual([]);
});

test("a data directory that others share is refused and left as it is", { timeout: MINUTES_3 }, async () => {
  // Prevents: `--data /tmp` taking /tmp away from everybody else.
  const dataDir = join(await temporaryDirectory(), "shared");
  mkdirSync(dataDir);
  chmodSync(dataDir, 0o1777);
  const cluster = up(dataDir);
  expect(await cluster.ended()).toBe(1);
  expect(cluster.output()).toContain("is shared with other users");
  expect(statSync(dataDir).mode & 0o7777).toBe(0o1777);
});

test("SIGHUP reopens logs and takes up the configuration, and ends nothing", { timeout: MINUTES_3 }, async () => {
  const dataDir = join(await temporaryDirectory(), "data");
  const cluster = up(dataDir);
  await cluster.ready();
  const policy = async () => (await statusOf(dataDir)).policy["maxTenantsPerShard"];
  expect(await policy()).toBe(25);
  renameSync(join(dataDir, "controller.log"), join(dataDir, "controller.log.moved"));
  const file = join(dataDir, "..", "cluster.yaml");
  writeFileSync(file, "maxTenantsPerShard: 7\ngateway: {port: 0, tlsPort: 1}\napi: {port: 0}\n");
  cluster.process.kill("SIGHUP");
  await expect.poll(policy).toBe(7);
  expect(existsSync(join(dataDir, "controller.log"))).toBe(true);
  expect(cluster.output()).toContain("Reloaded; at the next start: gateway.tlsPort");
  writeFileSync(file, "maxTenantPerShard: 9\n");
  cluster.process.kill("SIGHUP");
  await expect.poll(() => cluster.output()).toContain("Not reloaded");
  expect(cluster.output()).toContain("did you mean maxTenantsPerShard?");
  expect(await policy()).toBe(7);
  await allParts(dataDir);
});

test.skipIf(process.getuid?.() !== 0)(
  "a full disk stops nothing, is named, and is no trouble any more once there is room (needs root, for a small disk)",
  { timeout: MINUTES_3 },
  async () => {
    const disk = join(await temporaryDirectory(), "disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=160m,mode=711", "tmpfs", disk]);
    // Last in, first out: the cluster ends before its disk goes.
    onTestFinished(() => void execFileSync("umount", ["--lazy", disk]));
    const dataDir = join(disk, "data");
    const cluster = up(dataDir);
    await cluster.ready();
    const { gateway } = clusterFile(dataDir);
    const before = await allParts(dataDir);
    expect(() => writeFileSync(join(disk, "filler"), Buffer.alloc(200 * 2 ** 20))).toThrow(/ENOSPC/);
    await expect
      .poll(async () => (await statusOf(dataDir)).problems.join())
      .toMatch(/the disk of .*data \(store, media, logs, databases\) is full/);
    // Enough to fill what SQLite still has room for in its files.
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, n) => create(dataDir, `t${n}`, "#".repeat(50_000))),
    );
    expect(answers.filter(({ status }) => status === 503).length).toBeGreaterThan(0);
    for (const { status, message } of answers.filter((answer) => answer.status >= 400)) {
      expect([status, message]).toEqual([503, expect.stringMatching(/no space is left on the disk/)]);
    }
    expect((await fetch(`${gateway.http}/_matrix/client/versions`)).status).toBe(404);
    expect(await leftBehind(dataDir)).toEqual(before);
    rmSync(join(disk, "filler"));
    await expect.poll(async () => (await create(dataDir, "later", "")).status).toBeLessThan(300);
    expect((await statusOf(dataDir)).problems.join()).not.toMatch(/is full/);
  },
);
