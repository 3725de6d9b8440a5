import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Socket } from "node:net";
import { z } from "zod";
import { pythonEnvironment } from "../environment.ts";
import type { ConfinementSpec } from "./confinement.ts";

/** The place of a shard's command line (multi_synapse/fork_server.py). */
const ROOM = "-".repeat(8192);
/** After stdin, stdout and stderr. */
const STREAM = 3;
/** Imports take a second or two, and many times that on a busy machine. */
const READY_MS = 60_000;
const FORK_MS = 10_000;
const KEPT_OF_STDERR = 2_000;

const AnswerSchema = z.union([
  z.object({ ready: z.literal(true) }),
  z.object({ pid: z.int() }),
  z.object({ error: z.string() }),
]);
type Answer = z.infer<typeof AnswerSchema>;
/** An answer, or the end of a process. */
const LineSchema = z.union([AnswerSchema, z.object({ ended: z.int(), code: z.int() })]);

export interface ForkRequest {
  /** Of `python -m multi_synapse`. */
  arguments: string[];
  environment: Record<string, string>;
  directory: string;
  /** A file for stdout and stderr. */
  output: string;
  confine?: ConfinementSpec;
}

export interface ForkServerOptions {
  python: string;
  /** The directory that has the package `multi_synapse`. */
  runtimePath: string;
  allowUntestedReleases?: readonly string[];
}

/**
 * A process of one release that has everything in memory that its shards have in common, and forks them. It ends with this process;
 * the shards do not.
 */
export class ForkServer {
  readonly #process: ChildProcess;
  /** Undefined where a process could not even be tried, for lack of descriptors. */
  readonly #stream: Socket | undefined;
  readonly #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void; onEnded: () => void }[] = [];
  /** To be called when the process of that pid has ended. */
  readonly #onEnded = new Map<number, () => void>();
  readonly #ready: Promise<unknown>;
  #stderr = "";
  #ended: Error | undefined;

  constructor({ python, runtimePath, allowUntestedReleases = [] }: ForkServerOptions) {
    const allowed = allowUntestedReleases.map((release) => `--allow-untested=${release}`);
    this.#process = spawn(
      python,
      ["-m", "multi_synapse.fork_server", `--stream=${STREAM}`, ...allowed, `--room=${ROOM}`],
      {
        // Not in the session of a terminal, whose Ctrl-C the controller has to see first.
        detached: true,
        stdio: ["ignore", "ignore", "pipe", "pipe"],
        env: { ...pythonEnvironment(), PYTHONPATH: runtimePath },
      },
    );
    this.#process.on("error", (error) => this.#end(error.message));
    this.#process.on("close", () => this.#end(`it ended: ${this.#stderr.trim() || "without a word"}`));
    this.#process.stderr?.on("data", (data: Buffer) => {
      this.#stderr = (this.#stderr + data.toString()).slice(-KEPT_OF_STDERR);
    });
    this.#stream = this.#process.stdio?.[STREAM] as Socket | undefined;
    this.#stream?.on("error", () => {}); // `close` follows
    if (this.#stream) createInterface(this.#stream).on("line", (line) => this.#take(line));
    // Neither keeps this process from ending.
    this.#process.unref();
    for (const stream of [this.#stream, this.#process.stderr as Socket | null]) stream?.unref();
    this.#ready = this.#answer(READY_MS);
    this.#ready.catch(() => {});
  }

  /**
   * @param onEnded called when the process has ended, unless this server has ended before it
   * @returns the pid of a new process. @throws Error which says what is wrong; then no process was started
   */
  async fork(request: ForkRequest, onEnded: () => void = () => {}): Promise<number> {
    await this.#ready;
    if (this.#ended) throw this.#ended;
    const answered = this.#answer(FORK_MS, onEnded);
    this.#stream?.write(`${JSON.stringify(request)}\n`);
    const answer = await answered;
    if (!("pid" in answer)) throw new Error("the fork server answered something else than a process");
    return answer.pid;
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  close(): void {
    this.#stream?.destroy();
    this.#process.kill("SIGKILL");
    this.#end("it was closed");
  }

  /** The next line, of which there is one for each request, in their order. */
  async #answer(timeoutMs: number, onEnded: () => void = () => {}): Promise<Exclude<Answer, { error: string }>> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#waiting.push({ resolve, reject, onEnded });
    const timer = setTimeout(() => {
      // Answers would no longer belong to their requests.
      this.close();
    }, timeoutMs);
    try {
      const answer = await promise;
      if ("error" in answer) throw new Error(`the fork server: ${answer.error}`);
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  #take(line: string): void {
    const { data } = LineSchema.safeParse(JSON.parse(line));
    if (data && "ended" in data) {
      this.#onEnded.get(data.ended)?.();
      this.#onEnded.delete(data.ended);
      return;
    }
    const waiting = this.#waiting.shift();
    // Its end may be told in the same breath, before anybody goes on with the answer.
    if (waiting && data && "pid" in data) this.#onEnded.set(data.pid, waiting.onEnded);
    if (data) waiting?.resolve(data);
    else waiting?.reject(new Error(`the fork server answered ${line}`));
  }

  #end(why: string): void {
    this.#ended ??= new Error(`the fork server: ${why}`);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }
}

/** One for each release, as long as it works. */
export class ForkServers {
  /** By the release's Python. */
  readonly #servers = new Map<string, ForkServer>();

  /** The server of a release, which is started if need be. */
  of(options: ForkServerOptions): ForkServer {
    const present = this.#servers.get(options.python);
    if (present && !present.ended) return present;
    const server = new ForkServer(options);
    this.#servers.set(options.python, server);
    return server;
  }

  /** Ends those of releases that no shard has. @param used each shard's Python */
  keep(used: ReadonlySet<string>): void {
    for (const [python, server] of this.#servers) {
      if (used.has(python)) continue;
      server.close();
      this.#servers.delete(python);
    }
  }

  close(): void {
    for (const server of this.#servers.values()) server.close();
    this.#servers.clear();
  }
}
