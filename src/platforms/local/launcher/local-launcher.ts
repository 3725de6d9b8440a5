import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { chmod, chown, lchown, lstat, mkdir, open, readdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { pythonEnvironment } from "../environment.ts";
import { ensureSecret, writeAtomically } from "../files.ts";
import { UserError } from "../../../model/errors.ts";
import { ControlClient } from "../../../shard/control-client.ts";
import type { Assignment, ShardControl, TenantState, TenantCheck } from "../../../ports/shard-control.ts";
import type { ReleaseFacts, Launcher, ProcessState } from "../../../ports/launcher.ts";
import {
  type Confined,
  confinedCommand,
  confinementSpec,
  helperIn,
  type Means,
  newId,
  type Owner,
  ownerOf,
  pythonPath,
} from "./confinement.ts";
import type { ForkServers } from "./fork-server.ts";
import type { TenantMedia } from "./tenant-media.ts";
import { followLines, lastLines } from "./log-file.ts";

export interface LocalLauncherOptions {
  /** A directory for each shard is made below it. */
  directory: string;
  /** The directory that has the package `multi_synapse`. */
  runtimePath: string;
  /** Makes sure of more packages for shards of a release, and tells their directory. */
  installModules?(release: string, python: string): Promise<string>;
  /** Installs a Synapse release and tells its Python. */
  installSynapse(release: string, onProgress: (step: string) => void): Promise<{ python: string; facts: ReleaseFacts }>;
  /** @throws UserError UnknownRelease */
  checkRelease?(release: string): Promise<ReleaseFacts | undefined>;
  logLevel?: string;
  /** More of the shards' configuration file (multi_synapse/settings.py). */
  settings?: { allowUntestedReleases?: readonly string[]; [name: string]: unknown };
  /** Through these, shards of one release share memory, and start in a fraction of the time. */
  forkServers?: ForkServers;
  /** Takes a sentence for the log. */
  warn?(sentence: string): void;
  /** Keeps shards apart; without it they are processes like any other, which is for those who only end them. */
  confinement?: Confinement;
}

export interface Confinement {
  means: Means;
  media: TenantMedia;
  /** Files that every shard may read. */
  readable: readonly string[];
  memoryBytes?: number;
}

const ReadySchema = z.object({ pid: z.int(), instance: z.string(), address: z.url() });

/**
 * Shards as child processes. They are in sessions of their own: neither the controller's end nor a Ctrl-C in its terminal
 * reaches them. What is known of a process is in its shard's directory, so the next controller finds it again.
 */
export class LocalLauncher implements Launcher {
  readonly #options: LocalLauncherOptions;
  readonly #endListeners = new Set<(shard: string) => void>();

  constructor(options: LocalLauncherOptions) {
    this.#options = options;
  }

  async checkRelease(release: string): Promise<ReleaseFacts | undefined> {
    return this.#options.checkRelease?.(release);
  }

  async prepareRelease(release: string, onProgress: (step: string) => void): Promise<ReleaseFacts> {
    return (await this.#options.installSynapse(release, onProgress)).facts;
  }

  async start(shard: string, release: string): Promise<void> {
    if ((await this.observe(shard)).state !== "absent") return;
    const { python } = await this.#options.installSynapse(release, () => {});
    const modules = await this.#options.installModules?.(release, python);
    const path = (file: string) => this.#path(shard, file);
    const owner = await this.#prepareDirectory(shard);
    const config = {
      name: shard,
      stateDir: path("state"),
      control: { host: "127.0.0.1", port: 0 },
      tokenFile: path("token"),
      advertiseHost: "127.0.0.1",
      readyFile: path("run/ready.json"),
      logFile: path("run/shard.log"),
      logLevel: this.#options.logLevel ?? "INFO",
      ...(owner ? { umask: "007" } : {}),
      ...this.#options.settings,
    };
    writeAtomically(path("shard.json"), JSON.stringify(config, null, 2));
    if (owner) for (const file of ["shard.json", "token"]) await chown(path(file), owner.id, owner.id);
    writeAtomically(path("python"), python);
    writeAtomically(path("pid"), String(await this.#startProcess(shard, python, owner, modules)));
  }

  /** @returns its pid */
  async #startProcess(
    shard: string,
    python: string,
    owner: Owner | undefined,
    modules: string | undefined,
  ): Promise<number> {
    const path = (file: string) => this.#path(shard, file);
    const { forkServers, runtimePath, settings } = this.#options;
    const output = await open(path("output.log"), "a", 0o600);
    try {
      await output.truncate(0);
      const environment = {
        ...pythonEnvironment(),
        HOME: path("run"),
        TMPDIR: path("run/tmp"),
        PYTHONPATH: pythonPath(runtimePath, modules),
      };
      const confined = this.#confined(shard, owner);
      const shardArguments = ["--config", path("shard.json")];
      if (forkServers) {
        const { allowUntestedReleases = [] } = settings ?? {};
        try {
          const request = {
            arguments: shardArguments,
            environment,
            directory: path("state"),
            output: path("output.log"),
            ...(confined ? { confine: confinementSpec(confined.means, python, confined) } : {}),
          };
          const server = forkServers.of({ python, runtimePath, allowUntestedReleases });
          return await server.fork(request, () => this.#tellEnd(shard));
        } catch (error) {
          // Started by itself it takes more memory and a second or two, and says in its own words what is wrong.
          this.#options.warn?.(`shard ${shard} shares no memory with others: ${(error as Error).message}`);
        }
      }
      const command = [python, "-m", "multi_synapse", ...shardArguments] as const;
      const [program, ...args] = confined
        ? confinedCommand(confined.means, helperIn(runtimePath), command, confined)
        : command;
      const child = spawn(program, args, {
        cwd: path("state"),
        detached: true,
        stdio: ["ignore", output.fd, output.fd],
        env: environment,
      });
      child.on("error", () => {}); // seen as a process that is absent
      child.on("exit", () => this.#tellEnd(shard));
      if (child.pid === undefined)
        throw new UserError("Environment", `cannot start a process for shard ${shard} with ${python}`);
      child.unref();
      return child.pid;
    } finally {
      await output.close();
    }
  }

  /**
   * What is the shard's own (`state`, `run`), and what we tell it, in a directory that it cannot change: as root we would follow any
   * link that it makes.
   */
  async #prepareDirectory(shard: string): Promise<Owner | undefined> {
    const path = (file: string) => this.#path(shard, file);
    const { means, media } = this.#options.confinement ?? {};
    const owner =
      means?.users && media ? { id: ownerOf(path("state")) ?? newId(), shared: await media.group() } : undefined;
    const passable = owner ? 0o711 : 0o700;
    await mkdir(path(""), { recursive: true });
    for (const directory of [this.#options.directory, path("")]) await chmod(directory, passable);
    for (const directory of ["state", "run", "run/tmp"]) {
      await mkdir(path(directory), { recursive: true, mode: 0o700 });
    }
    ensureSecret(path("token"));
    for (const file of ["ready.json", "shard.log"]) {
      // An earlier version's shard had its log here.
      const former = await lstat(path(file)).catch(() => undefined);
      if (file === "shard.log" && former?.isFile()) await rename(path(file), path(`run/${file}`));
      await rm(path(file), { force: true });
      await symlink(`run/${file}`, path(file));
    }
    await rm(path("run/ready.json"), { force: true });
    if (owner) for (const directory of ["state", "run"]) await giveTo(path(directory), owner.id);
    await media?.openShard(shard, owner);
    return owner;
  }

  #confined(shard: string, owner: Owner | undefined): (Confined & { means: Means }) | undefined {
    const path = (file: string) => this.#path(shard, file);
    const { confinement, runtimePath } = this.#options;
    if (!confinement) return undefined;
    const { means, media, readable, memoryBytes } = confinement;
    return {
      means,
      ...(owner ? { owner } : {}),
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      read: [runtimePath, path("shard.json"), path("token"), ...readable],
      write: [path("state"), path("run"), media.shardDirectory(shard)],
    };
  }

  async observe(shard: string): Promise<ProcessState> {
    const pid = await this.#livePid(shard);
    if (pid === undefined) return { state: "absent" };
    const ready = await this.#announcement(shard);
    if (!ready.success || ready.data.pid !== pid) return { state: "starting" };
    return { state: "running", address: ready.data.address };
  }

  onEnded(listener: (shard: string) => void): () => void {
    this.#endListeners.add(listener);
    return () => this.#endListeners.delete(listener);
  }

  #tellEnd(shard: string): void {
    for (const listener of this.#endListeners) listener(shard);
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
    await this.#options.confinement?.media.closeShard(shard);
    await rm(this.#path(shard), { recursive: true, force: true });
    await this.#endUnusedServers();
  }

  async #endUnusedServers(): Promise<void> {
    const { forkServers, directory } = this.#options;
    if (!forkServers) return;
    const shards = await readdir(directory).catch(() => []);
    const pythons = await Promise.all(
      shards.map((shard) => readFile(this.#path(shard, "python"), "utf8").catch(() => "")),
    );
    forkServers.keep(new Set(pythons));
  }

  async client(shard: string, address: string): Promise<ShardControl> {
    const token = (await readFile(this.#path(shard, "token"), "utf8")).trim();
    const media = this.#options.confinement?.media;
    return media
      ? new LocalShardClient(shard, address, token, media, this.#path(shard, "run/tmp"))
      : new ControlClient(shard, address, token);
  }

  async *log(shard: string, options: { tail?: number; follow?: boolean; signal?: AbortSignal }): AsyncIterable<string> {
    const own = this.#path(shard, "run/shard.log");
    const file = (await lstat(own).catch(() => undefined)) ? own : this.#path(shard, "shard.log");
    if (!(await lstat(file).catch(() => undefined))?.isFile()) return;
    if (options.tail !== 0) yield* lastLines(file, options.tail);
    if (options.follow) yield* followLines(file, options.signal);
  }

  /**
   * The process of the shard, if it lives: the one this launcher noted, or the one that announced itself (a controller may
   * be killed between starting a process and noting its pid).
   */
  async #livePid(shard: string): Promise<number | undefined> {
    const noted = Number(await readFile(this.#path(shard, "pid"), "utf8").catch(() => "0"));
    const announced = await this.#announcement(shard);
    for (const pid of new Set([noted, announced.data?.pid ?? 0])) {
      if (pid > 0 && (await this.#isShard(pid, shard))) return pid;
    }
    return undefined;
  }

  /** What the shard says of itself. Of an earlier version it is beside what is ours. */
  async #announcement(shard: string) {
    const text =
      (await readOwn(this.#path(shard, "run/ready.json"))) ?? (await readOwn(this.#path(shard, "ready.json")));
    return ReadySchema.safeParse(parsed(text));
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

/** Before a shard starts a tenant, it gets the tenant's media. */
class LocalShardClient extends ControlClient {
  readonly #admit: (tenant: string, assignment: Assignment) => Promise<void>;
  readonly #scratch: string;

  /** @param scratch a directory of the shard's own */
  constructor(shard: string, address: string, token: string, media: TenantMedia, scratch: string) {
    super(shard, address, token);
    this.#scratch = scratch;
    this.#admit = async (tenant, { base }) => {
      const owner = media.ownerOf(base["media_store_path"]);
      // Those of another one may have the tenant's name.
      if (owner === undefined) throw new Error(`the media of ${tenant} are where none of ours are`);
      await media.admit(shard, owner);
    };
  }

  override async startTenant(name: string, assignment: Assignment, timeoutMs?: number): Promise<TenantState> {
    await this.#admit(name, assignment);
    return super.startTenant(name, assignment, timeoutMs);
  }

  /** A check takes no media from the shard that has them. Synapse looks for their directory when it reads a configuration. */
  override checkTenant(name: string, assignment: Assignment): Promise<TenantCheck> {
    return super.checkTenant(name, { ...assignment, base: { ...assignment.base, media_store_path: this.#scratch } });
  }
}

/** Gives a directory and what is in it to a user. What belongs to it is left, since it may be large. */
async function giveTo(directory: string, id: number): Promise<void> {
  if (ownerOf(directory) === id) return;
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await giveTo(path, id);
    else await lchown(path, id, id);
  }
  await lchown(directory, id, id);
}

const MOST_ANNOUNCED = 64 * 1024;

/** A file that the shard wrote, which may have put anything in its place: a link, a pipe that nobody writes to. */
async function readOwn(file: string): Promise<string | undefined> {
  try {
    const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = await handle.stat();
      return stat.isFile() && stat.size <= MOST_ANNOUNCED ? await handle.readFile("utf8") : undefined;
    } finally {
      await handle.close();
    }
  } catch {
    return undefined;
  }
}

function parsed(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}
