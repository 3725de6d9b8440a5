import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { vi } from "vitest";
import { parse, stringify } from "yaml";
import { PATIENCE_MS, until } from "../../support/patience.ts";
import type { ShardRow, TenantRow } from "../../../src/cli/rows.ts";

// Whole clusters, on machines that are busy with others.
vi.setConfig({ testTimeout: 3 * PATIENCE_MS, hookTimeout: 5 * PATIENCE_MS });

const ROOT = resolve(import.meta.dirname, "../../..");

/** Clients of tests are quicker than people. */
/** A busy machine makes shards hot and statements long: only tests of that want tenants to be moved or throttled for it. */
const CALM = { balancing: { cpuTarget: 0 }, cpuBudget: { databasePerTenant: 0 } };

export const RELAXED = {
  allowedOptions: ["rc_message", "rc_login", "rc_joins", "rc_invites", "rc_room_creation", "rc_registration"],
};

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface MoveAnswer {
  from: string;
  to: string;
  blackoutSeconds: number;
  parkedRequests: number;
  failedRequests: number;
}

/** A whole cluster as a user has it: `synapse-shards up` as a process, worked through the CLI. */
export class Cluster {
  readonly dataDir: string;
  #process: ChildProcess;
  #output = "";
  #configFile: string;

  private constructor(dataDir: string, configFile: string, process: ChildProcess) {
    this.dataDir = dataDir;
    this.#configFile = configFile;
    this.#process = process;
    this.#listen();
  }

  /**
   * @param config what differs from the defaults; ports are any free ones
   * @param env what the environment has more
   */
  static async start(config: Record<string, unknown> = {}, env: Record<string, string> = {}): Promise<Cluster> {
    const dataDir = await mkdtemp(join(tmpdir(), "shards-e2e-"));
    const configFile = join(dataDir, "cluster.yaml");
    const gateway = { port: 0, tlsPort: 0, ...(config["gateway"] as object | undefined) };
    await writeFile(configFile, stringify({ api: { port: 0 }, tenantPolicy: RELAXED, ...CALM, ...config, gateway }));
    const cluster = new Cluster(dataDir, configFile, launch(configFile, dataDir, env));
    await cluster.#untilUp();
    return cluster;
  }

  /** Changes the configuration while everything runs, as `systemctl reload` takes it up. */
  async reconfigure(changes: Record<string, unknown>): Promise<void> {
    const before = parse(await readFile(this.#configFile, "utf8")) as Record<string, unknown>;
    await writeFile(this.#configFile, stringify({ ...before, ...changes }));
    this.#process.kill("SIGHUP");
  }

  /** Ends `up` and starts it again with the same data. */
  async restart(how: "SIGINT" | "SIGKILL" = "SIGINT", ...more: string[]): Promise<void> {
    await this.end(how);
    this.#process = launch(this.#configFile, this.dataDir, {}, more);
    this.#listen();
    await this.#untilUp();
  }

  async end(how: "SIGINT" | "SIGKILL"): Promise<number | null> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return this.#process.exitCode;
    const ended = new Promise<number | null>((done) => this.#process.once("exit", (code) => done(code)));
    this.#process.kill(how);
    return ended;
  }

  /** Ends everything and removes the data. */
  async destroy(): Promise<void> {
    await this.end("SIGINT");
    await rm(this.dataDir, { recursive: true, force: true });
  }

  get output(): string {
    return this.#output;
  }

  async cli(...args: string[]): Promise<CliResult> {
    const child = spawn(process.execPath, [join(ROOT, "src/cli/main.ts"), ...args, "--data", this.dataDir], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk) => (stdout += chunk));
    child.stderr.on("data", (chunk) => (stderr += chunk));
    const code = await new Promise<number>((done) => child.once("close", (c) => done(c ?? -1)));
    return { code, stdout, stderr };
  }

  /** Runs the CLI, which must succeed, and reads its JSON. */
  async json<T>(...args: string[]): Promise<T> {
    const { code, stdout, stderr } = await this.cli(...args, "-o", "json");
    if (code !== 0) throw new Error(`synapse-shards ${args.join(" ")} ended with ${code}: ${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** The controller's API, with its token. */
  async api(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
    const { apiUrl } = await this.#info();
    const token = (await readFile(join(this.dataDir, "api-token"), "utf8")).trim();
    const response = await fetch(`${apiUrl}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : text };
  }

  async createTenant(name: string, ...more: string[]): Promise<void> {
    const { code, stderr } = await this.cli("tenant", "create", name, "--wait", ...more);
    if (code !== 0) throw new Error(`tenant ${name} was not created: ${stderr}`);
  }

  tenants(): Promise<TenantRow[]> {
    return this.json<TenantRow[]>("tenant", "list");
  }

  async tenant(name: string): Promise<TenantRow> {
    const found = (await this.tenants()).find((row) => row.name === name);
    if (!found) throw new Error(`there is no tenant ${name}`);
    return found;
  }

  shards(): Promise<ShardRow[]> {
    return this.json<ShardRow[]>("shard", "list");
  }

  move(name: string, ...more: string[]): Promise<MoveAnswer> {
    return this.json<MoveAnswer>("tenant", "move", name, ...more);
  }

  /** Port of the gateway. */
  async gatewayPort(kind: "http" | "https" = "http"): Promise<number> {
    return Number(new URL((await this.#info()).gateway[kind]).port);
  }

  /** The pid of a shard's process. */
  async shardPid(shard: string): Promise<number> {
    return Number(await readFile(join(this.dataDir, "shards", shard, "pid"), "utf8"));
  }

  /** Figures of a shard's process; the lag counts from the last call. */
  async shardStats(shard: string): Promise<{ reactorLag: { maxSeconds: number } }> {
    return (await this.#askShard(shard, "/v1/stats")) as { reactorLag: { maxSeconds: number } };
  }

  /** What a shard itself says of itself. */
  shardState(shard: string): Promise<unknown> {
    return this.#askShard(shard, "/v1/shard");
  }

  async #askShard(shard: string, path: string): Promise<unknown> {
    const { address } = JSON.parse(await readFile(join(this.dataDir, "shards", shard, "ready.json"), "utf8")) as {
      address: string;
    };
    const token = (await readFile(join(this.dataDir, "shards", shard, "token"), "utf8")).trim();
    const response = await fetch(`${address}${path}`, { headers: { authorization: `Bearer ${token}` } });
    return response.json();
  }

  async processPid(which: "controller" | "gateway"): Promise<number> {
    return (JSON.parse(await readFile(join(this.dataDir, `${which}.ready.json`), "utf8")) as { pid: number }).pid;
  }

  async #info(): Promise<{ apiUrl: string; gateway: { http: string; https: string } }> {
    return JSON.parse(await readFile(join(this.dataDir, "cluster.json"), "utf8"));
  }

  async #untilUp(): Promise<void> {
    const isUp = () => this.#process.exitCode !== null || this.#output.includes("Press Ctrl-C");
    await until("up is up", isUp, 300, () => this.#output);
    if (this.#process.exitCode !== null) throw new Error(`up ended with ${this.#process.exitCode}:\n${this.#output}`);
  }

  #listen(): void {
    this.#output = "";
    this.#process.stdout?.on("data", (chunk) => (this.#output += chunk));
    this.#process.stderr?.on("data", (chunk) => (this.#output += chunk));
  }
}

function launch(
  configFile: string,
  dataDir: string,
  env: Record<string, string> = {},
  more: string[] = [],
): ChildProcess {
  return spawn(
    process.execPath,
    [join(ROOT, "src/cli/main.ts"), "up", "--config", configFile, "--data", dataDir, ...more],
    {
      // By the channel it notices if the test's process is killed, and ends in order.
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      env: { ...process.env, ...env },
    },
  );
}
