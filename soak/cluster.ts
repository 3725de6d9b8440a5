import { spawn, type ChildProcess } from "node:child_process";
import { createWriteStream } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { stringify } from "yaml";
import { pathsIn } from "../src/platforms/local/data-directory.ts";

const ROOT = resolve(import.meta.dirname, "..");
/** The first start creates PostgreSQL's data, which takes a busy machine some time. */
const UP_MS = 180_000;
/** `up` bounds each of its parts; this is above the sum. */
const DOWN_MS = 150_000;
/** Installing nothing, the API's slowest answer is the registration of a user. */
const ANSWER_MS = 60_000;
/** How long the controller may be away: it is restarted at growing intervals. */
const AWAY_MS = 90_000;
const POLL_MS = 100;

export interface Answer {
  status: number;
  body: unknown;
  /** How often it was asked; an action whose answer was lost may have been done. */
  attempts: number;
}

/** Clients of the soak are quicker than people. */
const ALLOWED = ["rc_message", "rc_login", "rc_room_creation"];

/** A cluster as a user has it: `synapse-shards up` as a process. Nothing in it outlives `end`. */
export class SoakCluster {
  readonly dataDir: string;
  readonly configFile: string;
  readonly outputFile: string;
  #process: ChildProcess | undefined;

  constructor(dataDir: string) {
    this.dataDir = dataDir;
    this.configFile = join(dataDir, "soak.yaml");
    this.outputFile = join(dataDir, "up.output.log");
  }

  /** @param config of the cluster; ports are any free ones @param peer the port of a server on this machine that tenants may reach */
  async start(config: Record<string, unknown>, peer?: number): Promise<void> {
    const ports = { api: { port: 0 }, gateway: { port: 0, tlsPort: 0 } };
    const tenantPolicy =
      peer === undefined
        ? { allowedOptions: ALLOWED }
        : {
            allowedOptions: [...ALLOWED, "federation_verify_certificates"],
            allowedDestinations: [`127.0.0.0/8:${peer}`],
          };
    await writeFile(this.configFile, stringify({ tenantPolicy, ...config, ...ports }));
    await this.#launch();
  }

  /** Ends `up` in the given way and starts it again with the same data. */
  async restart(how: "SIGINT" | "SIGKILL"): Promise<void> {
    await this.#end(how);
    await this.#launch();
  }

  /** Ends everything, by force where necessary. @returns the processes that had to be forced: pid and command line */
  async end(): Promise<string[]> {
    await this.#end("SIGINT");
    const left = await this.processes();
    const forced = left.map(({ pid, args }) => `${pid} (${args.join(" ").trim()})`);
    for (const { pid } of left) signal(pid, "SIGKILL");
    const postmaster = Number(
      (await readFile(join(pathsIn(this.dataDir).postgres, "postmaster.pid"), "utf8").catch(() => "")).split("\n")[0],
    );
    if (postmaster > 0 && (await this.#isPostmaster(postmaster))) {
      signal(postmaster, "SIGQUIT");
      return [...forced, `${postmaster} (PostgreSQL)`];
    }
    return forced;
  }

  /** Asks the controller, and retries while it is away. @throws when it has been away for too long */
  async api(method: "GET" | "POST" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<Answer> {
    const deadline = Date.now() + AWAY_MS;
    for (let attempts = 1; ; attempts++) {
      try {
        const [url, token] = await Promise.all([this.#apiUrl(), readFile(pathsIn(this.dataDir).apiToken, "utf8")]);
        const response = await request(`${url}${path}`, {
          method,
          headers: {
            authorization: `Bearer ${token.trim()}`,
            ...(body === undefined ? {} : { "content-type": "application/json" }),
          },
          body: body === undefined ? null : JSON.stringify(body),
          signal: AbortSignal.timeout(ANSWER_MS),
        });
        const text = await response.body.text();
        const parsed = /^[[{]/.test(text) && !path.startsWith("/v1/events") ? (JSON.parse(text) as unknown) : text;
        return { status: response.statusCode, body: parsed, attempts };
      } catch (error) {
        if (Date.now() > deadline)
          throw new Error(`the controller has not answered ${method} ${path} for ${AWAY_MS / 1000} s`, {
            cause: error,
          });
        await sleep(POLL_MS);
      }
    }
  }

  async gatewayPort(): Promise<number> {
    return (await this.#ports()).http;
  }

  /** Where other servers reach tenants. */
  async federationPort(): Promise<number> {
    return (await this.#ports()).https;
  }

  async #ports(): Promise<{ http: number; https: number }> {
    return JSON.parse(await readFile(join(this.dataDir, "ports.json"), "utf8")) as { http: number; https: number };
  }

  async partPid(part: "controller" | "gateway"): Promise<number | undefined> {
    return (await readJson<{ pid: number }>(join(this.dataDir, `${part}.ready.json`)))?.pid;
  }

  async postgresPid(): Promise<number | undefined> {
    const pid = Number(
      (await readFile(join(pathsIn(this.dataDir).postgres, "postmaster.pid"), "utf8").catch(() => "")).split("\n")[0],
    );
    return pid > 0 ? pid : undefined;
  }

  async shardPid(shard: string): Promise<number | undefined> {
    return (
      Number(await readFile(join(pathsIn(this.dataDir).shards, shard, "pid"), "utf8").catch(() => "")) || undefined
    );
  }

  /** What a shard says of itself; undefined if it does not answer. */
  async askShard(shard: string): Promise<unknown> {
    const directory = join(pathsIn(this.dataDir).shards, shard);
    try {
      const ready = await readJson<{ address: string }>(join(directory, "ready.json"));
      const token = (await readFile(join(directory, "token"), "utf8")).trim();
      const response = await request(`${ready?.address}/v1/shard`, {
        headers: { authorization: `Bearer ${token}` },
        signal: AbortSignal.timeout(10_000),
      });
      return await response.body.json();
    } catch {
      return undefined;
    }
  }

  /** Processes whose command line has a path below the data directory; PostgreSQL's have none. */
  async processes(): Promise<{ pid: number; args: string[] }[]> {
    const found = [];
    for (const entry of await readdir("/proc")) {
      const pid = Number(entry);
      if (!(pid > 0) || pid === process.pid) continue;
      const args = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
      if (args.some((arg) => arg.startsWith(this.dataDir))) found.push({ pid, args });
    }
    return found;
  }

  async #launch(): Promise<void> {
    const output = createWriteStream(this.outputFile, { flags: "a", mode: 0o600 });
    const args = [join(ROOT, "src/cli/main.ts"), "up", "--config", this.configFile, "--data", this.dataDir];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    let said = "";
    const onData = (chunk: Buffer): void => {
      said += chunk.toString();
      output.write(chunk);
    };
    child.stdout.on("data", onData);
    child.stderr.on("data", onData);
    const deadline = Date.now() + UP_MS;
    while (!said.includes("Press Ctrl-C")) {
      if (child.exitCode !== null)
        throw new Error(`up ended with ${child.exitCode}: ${said.trim().split("\n").at(-1)}`);
      if (Date.now() > deadline) throw new Error(`up did not come up within ${UP_MS / 1000} s`);
      await sleep(POLL_MS);
    }
  }

  async #end(how: "SIGINT" | "SIGKILL"): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((done) => child.once("exit", () => done()));
    child.kill(how);
    const inTime = await Promise.race([ended.then(() => true), sleep(DOWN_MS, false, { ref: false })]);
    if (inTime) return;
    child.kill("SIGKILL");
    throw new Error(`up did not end within ${DOWN_MS / 1000} s of ${how}`);
  }

  /** While `up` is down, the address that it will have. */
  async #apiUrl(): Promise<string> {
    const { api } = JSON.parse(await readFile(join(this.dataDir, "ports.json"), "utf8")) as { api: number };
    return `http://127.0.0.1:${api}`;
  }

  async #isPostmaster(pid: number): Promise<boolean> {
    const args = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    return args.includes("postgres");
  }
}

export function signal(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(pid, name);
  } catch {
    // It ended meanwhile.
  }
}

export async function readJson<T>(file: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as T;
  } catch {
    return undefined;
  }
}
