import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, request } from "undici";
import { stringify } from "yaml";
import { onEnd } from "./cleanup.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const HOST = "127.0.0.1";
const UP_MS = 300_000;
const ANSWER_MS = 60_000;
const AGAIN_MS = 100;
/** How often a new tenant is asked whether it serves; half of it is added to the measurement on average. */
const ASK_EVERY_MS = 10;

/** Any free ports; and what is measured stays awake, unless it is sleep. */
const DEFAULTS = {
  api: { port: 0 },
  gateway: { port: 0, tlsPort: 0 },
  hibernation: { afterIdleSeconds: 0 },
};

/** Only what is measured moves tenants, or slows them down. */
export const STILL = { balancing: { cpuTarget: 0 }, cpuBudget: { databasePerTenant: 0 } };

/** A whole cluster as a user has it: `synapse-shards up`, worked through its command line and its gateway. */
export class BenchCluster {
  readonly dataDir: string;
  #gateway = "";
  #api = { url: "", token: "" };
  readonly #agent = new Agent({ connections: 16 });
  readonly #close: () => Promise<void>;
  #child: ChildProcess;

  private constructor(dataDir: string, child: ChildProcess) {
    this.dataDir = dataDir;
    this.#child = child;
    this.#close = onEnd(async () => {
      await ended(this.#child, "SIGINT");
      await rm(dataDir, { recursive: true, force: true });
    });
  }

  /** @param config what differs from the defaults; ports are any free ones */
  static async up(config: Record<string, unknown> = {}): Promise<BenchCluster> {
    const dataDir = await mkdtemp(join(tmpdir(), "shards-bench-"));
    const configFile = join(dataDir, "cluster.yaml");
    await writeFile(configFile, stringify({ ...DEFAULTS, ...config }));
    const cluster = new BenchCluster(dataDir, launched(dataDir));
    await cluster.#untilUp();
    return cluster;
  }

  /** Ends everything, and starts it again after that time, with its data. @param meanwhile done while nothing runs */
  async restart(awayMs: number, meanwhile?: () => Promise<void>): Promise<void> {
    await ended(this.#child, "SIGINT");
    await meanwhile?.();
    await sleep(awayMs);
    this.#child = launched(this.dataDir);
    await this.#untilUp();
  }

  /** The supervisor, of which every other process is a descendant. */
  get pid(): number {
    if (this.#child.pid === undefined) throw new Error("the cluster was not started");
    return this.#child.pid;
  }

  /** Of the process that serves now. */
  async pidOf(part: "controller" | "gateway"): Promise<number> {
    return (JSON.parse(await readFile(join(this.dataDir, `${part}.ready.json`), "utf8")) as { pid: number }).pid;
  }

  /** Where clients reach it. */
  get gateway(): string {
    return this.#gateway.replace("localhost", HOST);
  }

  /** A call of the controller's API, to leave out the start of the command line. @throws Error for any answer but a good one */
  async call<T>(method: "GET" | "POST" | "PATCH", path: string, body?: object): Promise<T> {
    const { status, json } = await this.ask(method, path, body);
    if (status >= 300) throw new Error(`the controller answered ${path} with ${status}: ${JSON.stringify(json)}`);
    return json as T;
  }

  /** While the controller is away, it is asked again: nothing has come to it. */
  async ask(method: "GET" | "POST" | "PATCH", path: string, body?: object): Promise<{ status: number; json: unknown }> {
    for (const deadline = Date.now() + ANSWER_MS; ; await sleep(AGAIN_MS)) {
      try {
        const answer = await request(`${this.#api.url}${path}`, {
          method,
          headers: { authorization: `Bearer ${this.#api.token}`, "content-type": "application/json" },
          body: method === "GET" ? null : JSON.stringify(body ?? {}),
          dispatcher: this.#agent,
        });
        return { status: answer.statusCode, json: await answer.body.json() };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ECONNREFUSED" || Date.now() > deadline) throw error;
      }
    }
  }

  async #untilUp(): Promise<void> {
    await untilUp(this.#child);
    const { apiUrl, gateway } = JSON.parse(await readFile(join(this.dataDir, "cluster.json"), "utf8")) as {
      apiUrl: string;
      gateway: { http: string };
    };
    this.#gateway = gateway.http;
    this.#api = { url: apiUrl, token: (await readFile(join(this.dataDir, "api-token"), "utf8")).trim() };
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
    await this.#close();
  }

  /** Runs the command line; it must succeed. @returns its output */
  async cli(...args: string[]): Promise<string> {
    const child = spawn(process.execPath, [join(ROOT, "src/cli/main.ts"), ...args, "--data", this.dataDir], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (chunk) => (stdout += chunk));
    child.stderr.on("data", (chunk) => (stderr += chunk));
    const code = await new Promise<number | null>((done) => child.once("close", done));
    if (code !== 0) throw new Error(`synapse-shards ${args.join(" ")} ended with ${code}: ${stderr}`);
    return stdout;
  }

  /** Asks a tenant through the gateway until it answers a client's request. */
  async untilAnswered(host: string): Promise<void> {
    let last: unknown = "nothing";
    for (const deadline = Date.now() + ANSWER_MS; Date.now() < deadline; await sleep(ASK_EVERY_MS)) {
      try {
        const { statusCode, body } = await this.#agent.request({
          origin: this.gateway,
          path: "/_matrix/client/versions",
          method: "GET",
          headers: { host },
          signal: AbortSignal.timeout(ANSWER_MS),
        });
        await body.dump();
        if (statusCode === 200) return;
        last = statusCode;
      } catch (error) {
        last = error;
      }
    }
    throw new Error(`${host} did not answer within ${ANSWER_MS / 1000} s; the last thing was ${String(last)}`);
  }
}

function launched(dataDir: string): ChildProcess {
  const args = ["up", "--config", join(dataDir, "cluster.yaml"), "--data", dataDir];
  return spawn(process.execPath, [join(ROOT, "src/cli/main.ts"), ...args], { stdio: ["ignore", "pipe", "pipe"] });
}

async function untilUp(child: ChildProcess): Promise<void> {
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => (output += chunk));
  for (const deadline = Date.now() + UP_MS; !output.includes("Press Ctrl-C"); await sleep(50)) {
    if (child.exitCode !== null) throw new Error(`up ended with ${child.exitCode}:\n${output}`);
    if (Date.now() > deadline) throw new Error(`up did not come up:\n${output}`);
  }
}

async function ended(child: ChildProcess, signal: "SIGINT"): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise<void>((done) => child.once("exit", () => done()));
  child.kill(signal);
  await exit;
}
