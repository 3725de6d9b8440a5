import { spawn } from "node:child_process";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { pythonEnvironment } from "../environment.ts";
import { ensureSecret, writeAtomically } from "../files.ts";
import { UserError } from "../../../model/errors.ts";
import { ControlClient } from "../../../shard/control-client.ts";
import type { ShardControl } from "../../../ports/shard-control.ts";
import type { ReleaseFacts, Launcher, ProcessState } from "../../../ports/launcher.ts";
import { followLines, lastLines } from "./log-file.ts";

export interface LocalLauncherOptions {
  /** A directory for each shard is made below it. */
  directory: string;
  /** The directory that has the package `multi_synapse`. */
  runtimePath: string;
  /** Installs a Synapse release and tells its Python. */
  installSynapse(release: string, onProgress: (step: string) => void): Promise<{ python: string; facts: ReleaseFacts }>;
  /** @throws UserError UnknownRelease */
  checkRelease?(release: string): Promise<void>;
  logLevel?: string;
}

const ReadySchema = z.object({ pid: z.int(), instance: z.string(), address: z.url() });

/**
 * Shards as child processes. They are in sessions of their own: neither the controller's end nor a Ctrl-C in its terminal
 * reaches them. What is known of a process is in its shard's directory, so the next controller finds it again.
 */
export class LocalLauncher implements Launcher {
  readonly #options: LocalLauncherOptions;

  constructor(options: LocalLauncherOptions) {
    this.#options = options;
  }

  async checkRelease(release: string): Promise<void> {
    await this.#options.checkRelease?.(release);
  }

  async prepareRelease(release: string, onProgress: (step: string) => void): Promise<ReleaseFacts> {
    return (await this.#options.installSynapse(release, onProgress)).facts;
  }

  async start(shard: string, release: string): Promise<void> {
    if ((await this.observe(shard)).state !== "absent") return;
    const { python } = await this.#options.installSynapse(release, () => {});
    const path = (file: string) => this.#path(shard, file);
    await mkdir(path("state"), { recursive: true, mode: 0o700 });
    ensureSecret(path("token"));
    await rm(path("ready.json"), { force: true });
    const config = {
      name: shard,
      stateDir: path("state"),
      control: { host: "127.0.0.1", port: 0 },
      tokenFile: path("token"),
      advertiseHost: "127.0.0.1",
      readyFile: path("ready.json"),
      logFile: path("shard.log"),
      logLevel: this.#options.logLevel ?? "INFO",
    };
    writeAtomically(path("shard.json"), JSON.stringify(config, null, 2));
    const output = await open(path("output.log"), "w", 0o600);
    try {
      const child = spawn(python, ["-m", "multi_synapse", "--config", path("shard.json")], {
        cwd: path("state"),
        detached: true,
        stdio: ["ignore", output.fd, output.fd],
        env: { ...pythonEnvironment(), PYTHONPATH: this.#options.runtimePath },
      });
      child.on("error", () => {}); // seen as a process that is absent
      if (child.pid === undefined)
        throw new UserError("Environment", `cannot start a process for shard ${shard} with ${python}`);
      writeAtomically(path("pid"), String(child.pid));
      child.unref();
    } finally {
      await output.close();
    }
  }

  async observe(shard: string): Promise<ProcessState> {
    const pid = await this.#livePid(shard);
    if (pid === undefined) return { state: "absent" };
    const ready = ReadySchema.safeParse(await readJson(this.#path(shard, "ready.json")));
    if (!ready.success || ready.data.pid !== pid) return { state: "starting" };
    return { state: "running", address: ready.data.address };
  }

  async stop(shard: string, graceSeconds: number): Promise<void> {
    const pid = await this.#livePid(shard);
    if (pid === undefined) return;
    signal(pid, "SIGTERM");
    const deadline = Date.now() + graceSeconds * 1000;
    while (Date.now() < deadline) {
      if ((await this.#livePid(shard)) === undefined) return;
      await sleep(50);
    }
    await this.kill(shard);
  }

  async kill(shard: string): Promise<void> {
    for (let pid = await this.#livePid(shard); pid !== undefined; pid = await this.#livePid(shard)) {
      signal(pid, "SIGKILL");
      await sleep(20);
    }
  }

  async remove(shard: string): Promise<void> {
    if ((await this.#livePid(shard)) !== undefined) throw new Error(`shard ${shard} still runs`);
    await rm(this.#path(shard), { recursive: true, force: true });
  }

  async client(shard: string, address: string): Promise<ShardControl> {
    return new ControlClient(shard, address, (await readFile(this.#path(shard, "token"), "utf8")).trim());
  }

  async *log(shard: string, options: { tail?: number; follow?: boolean; signal?: AbortSignal }): AsyncIterable<string> {
    const file = this.#path(shard, "shard.log");
    if (options.tail !== 0) yield* lastLines(file, options.tail);
    if (options.follow) yield* followLines(file, options.signal);
  }

  /**
   * The process of the shard, if it lives: the one this launcher noted, or the one that announced itself (a controller may
   * be killed between starting a process and noting its pid).
   */
  async #livePid(shard: string): Promise<number | undefined> {
    const noted = Number(await readFile(this.#path(shard, "pid"), "utf8").catch(() => "0"));
    const announced = ReadySchema.safeParse(await readJson(this.#path(shard, "ready.json")));
    for (const pid of new Set([noted, announced.data?.pid ?? 0])) {
      if (pid > 0 && (await this.#isShard(pid, shard))) return pid;
    }
    return undefined;
  }

  /** A pid alone would not do: another process may have it by now. */
  async #isShard(pid: number, shard: string): Promise<boolean> {
    try {
      const [arguments_, stat] = await Promise.all([
        readFile(`/proc/${pid}/cmdline`, "utf8"),
        readFile(`/proc/${pid}/stat`, "utf8"),
      ]);
      const zombie = stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
      return !zombie && arguments_.split("\0").includes(this.#path(shard, "shard.json"));
    } catch {
      return false;
    }
  }

  #path(shard: string, file = ""): string {
    return join(this.#options.directory, shard, file);
  }
}

function signal(pid: number, name: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended meanwhile.
  }
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8"));
  } catch {
    return undefined;
  }
}
