import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../../tests/support/free-port.ts";
import { onEnd } from "./cleanup.ts";
import { endProcess, isAlive } from "./processes.ts";

const MAIN = resolve(import.meta.dirname, "../../src/platforms/kubernetes/controller-main.ts");
const TOKEN = "the-token-of-the-owner-of-this-cluster";
const POLL_MS = 50;

export const TOKENS = {
  metadata: { name: "tokens" },
  stringData: { "api-token": TOKEN, "gateway-token": "the-token-of-the-gateways-of-this-cluster" },
};

/** A replica of the controller as a process of this machine. */
export class ControllerReplica {
  readonly pid: number;
  readonly begunAt = performance.now();
  readonly #url: string;
  readonly #log: string;

  private constructor(pid: number, url: string, log: string) {
    this.pid = pid;
    this.#url = url;
    this.#log = log;
    onEnd(() => endProcess(pid, 5_000));
  }

  /** @param config of the controller, without its port */
  static async start(directory: string, kubeconfig: string, config: object): Promise<ControllerReplica> {
    const port = await freePort();
    const [file, log] = [join(directory, `controller-${port}.yaml`), join(directory, `controller-${port}.log`)];
    const tokens = { secret: TOKENS.metadata.name, make: false };
    await writeFile(file, JSON.stringify({ ...config, api: { host: "127.0.0.1", port }, tokens }));
    const env = { ...process.env, KUBECONFIG: kubeconfig, POD_NAME: `controller-${port}`, POD_IP: "127.0.0.1" };
    const out = openSync(log, "a");
    const child = spawn(process.execPath, [MAIN, "--config", file], { env, stdio: ["ignore", out, out] });
    closeSync(out);
    // Told by the missing process id.
    child.on("error", () => {});
    if (child.pid === undefined) throw new Error("the controller cannot be started");
    return new ControllerReplica(child.pid, `http://127.0.0.1:${port}`, log);
  }

  /** Until it leads and knows all there is: then it answers questions itself. @returns seconds since its start */
  async leads(tenant: string, withinMs: number): Promise<number> {
    await this.until("leads", withinMs, async () => {
      const isLeader = (await readFile(this.#log, "utf8")).includes('"this controller leads"');
      return isLeader && (await this.#status(`/v1/tenants/${tenant}`)) === 200;
    });
    return (performance.now() - this.begunAt) / 1000;
  }

  /** Whether it serves, itself or by passing on. */
  async answers(tenant: string, withinMs: number): Promise<void> {
    await this.until("answers", withinMs, async () => (await this.#status(`/v1/tenants/${tenant}`)) === 200);
  }

  /** Tells in words what it logged as going wrong. */
  async complaints(): Promise<string[]> {
    const lines = (await readFile(this.#log, "utf8")).split("\n");
    return lines.filter((line) => /"level":[4-6]0/.test(line) || (line !== "" && !line.startsWith("{")));
  }

  async until(what: string, withinMs: number, isSo: () => Promise<boolean>): Promise<void> {
    for (const deadline = Date.now() + withinMs; ; await sleep(POLL_MS)) {
      if (await isSo()) return;
      if (!(await isAlive(this.pid)))
        throw new Error(`the controller ended before it ${what}: ${(await this.complaints()).at(-1) ?? ""}`);
      if (Date.now() > deadline) throw new Error(`it took more than ${withinMs / 1000} s until the controller ${what}`);
    }
  }

  /** At once, as in a power cut. */
  async kill(): Promise<void> {
    process.kill(this.pid, "SIGKILL");
    while (await isAlive(this.pid)) await sleep(10);
  }

  #status(path: string): Promise<number> {
    const headers = { authorization: `Bearer ${TOKEN}` };
    return fetch(`${this.#url}${path}`, { headers, signal: AbortSignal.timeout(5_000) }).then(
      async (response) => {
        await response.arrayBuffer();
        return response.status;
      },
      () => 0,
    );
  }
}
