import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";

const READY_MS = 30_000;

export interface Sample {
  metric: Record<string, string>;
  value: [time: number, value: string];
}

export interface Target {
  health: "up" | "down" | "unknown";
  labels: Record<string, string>;
  scrapeUrl: string;
  lastError: string;
}

/** A real Prometheus on this machine's loopback that scrapes every second. */
export class Prometheus {
  readonly url: string;
  readonly #directory: string;
  readonly #process: ChildProcess;
  #output = "";

  private constructor(url: string, directory: string, process: ChildProcess) {
    this.url = url;
    this.#directory = directory;
    this.#process = process;
    process.stderr!.on("data", (chunk) => (this.#output += chunk));
  }

  /** @param scrapeConfigs as in prometheus.yml @param of rules: content of a rule file; address: default, at any free port */
  static async start(
    program: string,
    scrapeConfigs: object[],
    of: { rules?: object; address?: string } = {},
  ): Promise<Prometheus> {
    const { rules, address = `127.0.0.1:${await freePort()}` } = of;
    const directory = await mkdtemp(join(tmpdir(), "prometheus-"));
    const [config, ruleFile] = [join(directory, "prometheus.yml"), join(directory, "rules.yml")];
    if (rules) await writeFile(ruleFile, stringify(rules));
    await writeFile(
      config,
      stringify({
        global: { scrape_interval: "1s", scrape_timeout: "1s", evaluation_interval: "1s" },
        scrape_configs: scrapeConfigs,
        ...(rules ? { rule_files: [ruleFile] } : {}),
      }),
    );
    const child = spawn(
      program,
      [`--config.file=${config}`, `--storage.tsdb.path=${join(directory, "data")}`, `--web.listen-address=${address}`],
      { stdio: ["ignore", "ignore", "pipe"], cwd: directory },
    );
    const prometheus = new Prometheus(`http://${address}`, directory, child);
    await prometheus.#untilReady();
    return prometheus;
  }

  /** @throws Error with Prometheus' own words */
  async query(expr: string): Promise<Sample[]> {
    return this.#get<{ result: Sample[] }>("query", { query: expr }).then(({ result }) => result);
  }

  /** As Grafana asks for a panel. @returns the number of series */
  async queryRange(expr: string, seconds: number): Promise<number> {
    const end = Date.now() / 1000;
    const range = { start: String(end - seconds), end: String(end), step: "5" };
    return this.#get<{ result: unknown[] }>("query_range", { query: expr, ...range }).then(
      ({ result }) => result.length,
    );
  }

  async targets(): Promise<Target[]> {
    return this.#get<{ activeTargets: Target[] }>("targets", {}).then(({ activeTargets }) => activeTargets);
  }

  async rules(): Promise<{ name: string; state: string; health: string; lastError?: string }[]> {
    type Group = { rules: { name: string; state: string; health: string; lastError?: string }[] };
    return this.#get<{ groups: Group[] }>("rules", {}).then(({ groups }) => groups.flatMap(({ rules }) => rules));
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.#process.once("exit", done));
    if (this.#process.exitCode === null && this.#process.kill("SIGTERM")) await ended;
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #get<T>(what: string, parameters: Record<string, string>): Promise<T> {
    const response = await fetch(`${this.url}/api/v1/${what}?${new URLSearchParams(parameters).toString()}`);
    const answer = (await response.json()) as { status: string; data: T; error?: string };
    if (answer.status !== "success") throw new Error(`${answer.error}: ${JSON.stringify(parameters)}`);
    return answer.data;
  }

  async #untilReady(): Promise<void> {
    const deadline = Date.now() + READY_MS;
    while (Date.now() < deadline && this.#process.exitCode === null) {
      const ready = await fetch(`${this.url}/-/ready`).catch(() => undefined);
      if (ready?.ok) return;
      await sleep(100);
    }
    await this.stop();
    throw new Error(`prometheus did not become ready: ${this.#output}`);
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}
