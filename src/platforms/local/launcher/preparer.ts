import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { UserError } from "../../../model/errors.ts";
import { pythonEnvironment } from "../environment.ts";
import {
  PreparerError,
  PreparerEventSchema,
  type MigrateCommand,
  type PreparerDatabase,
  type PreparerEvent,
  type PreparerFacts,
  type PreparerResult,
} from "../../../ports/preparers.ts";

export interface PreparerOptions {
  /** The Python of the release's environment. */
  python: string;
  /** What the process finds in its environment, e.g. PYTHONPATH; beside what every Python of ours finds there. */
  env?: Record<string, string>;
  cwd?: string;
  /** Arguments; default `preparerArguments()`. */
  args?: string[];
  /** Milliseconds for importing Synapse: one or two seconds on an idle machine. */
  readyMs?: number;
  /** Milliseconds for a command: a large database's migration takes minutes. */
  commandMs?: number;
  /** Ends the process; whatever is waited for fails. */
  signal?: AbortSignal;
}

/** What Python is started with. */
export function preparerArguments(allowUntestedReleases: string[] = []): string[] {
  return [
    "-m",
    "multi_synapse.prepare",
    ...allowUntestedReleases.map((release) => `--allow-untested-release=${release}`),
  ];
}

const READY_MS = 60_000;
const COMMAND_MS = 600_000;
/** How long it may take to end on its own before it is killed. */
const END_MS = 3000;

/**
 * A running preparer (docs/control-api.md): one short-lived Python process of one Synapse release that does slow work on
 * databases. Takes one command at a time. Close it in any case.
 */
export class Preparer {
  readonly facts: PreparerFacts;
  readonly #process: PreparerProcess;
  readonly #commandMs: number;

  private constructor(process: PreparerProcess, facts: PreparerFacts, commandMs: number) {
    this.#process = process;
    this.facts = facts;
    this.#commandMs = commandMs;
  }

  /** Starts the process and waits until it has imported Synapse. @throws UserError Environment, Timeout; PreparerError */
  static async start(options: PreparerOptions): Promise<Preparer> {
    const process = new PreparerProcess(options);
    try {
      const event = await process.next(options.readyMs ?? READY_MS, "to get ready");
      if (event.event !== "ready") throw new UserError("Environment", `the preparer began with ${event.event}`);
      const { release, schemaVersion, schemaCompatVersion } = event;
      const facts = { release, schemaVersion, schemaCompatVersion };
      return new Preparer(process, facts, options.commandMs ?? COMMAND_MS);
    } catch (error) {
      await process.end();
      throw error;
    }
  }

  /** Makes the whole schema in an empty database. */
  template(database: PreparerDatabase): Promise<PreparerResult> {
    return this.#run({ command: "template", database });
  }

  /** Claims the fence for a shard, then brings the schema up to this release. */
  migrate(command: MigrateCommand): Promise<PreparerResult> {
    return this.#run({ command: "migrate", ...command });
  }

  /** Ends the process, by force if need be. Idempotent. */
  close(): Promise<void> {
    return this.#process.end();
  }

  async #run(command: object): Promise<PreparerResult> {
    this.#process.send(command);
    const event = await this.#process.next(this.#commandMs, "for its work");
    if (event.event !== "done") throw new UserError("Environment", `the preparer answered with ${event.event}`);
    const { seconds, from, to } = event;
    return { seconds, from, to };
  }
}

/** The process and its lines. */
class PreparerProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #signal?: AbortSignal;
  readonly #onAbort = () => this.#fail(new UserError("Unavailable", "the preparer was called off"));
  #events: PreparerEvent[] = [];
  #failure?: Error;
  #wake?: () => void;
  #lastWords = "";
  /** Secrets go in with the first command; what the process says afterwards is not quoted in errors. */
  #secretsSent = false;

  constructor(options: PreparerOptions) {
    const env = { ...pythonEnvironment(), ...options.env };
    const args = options.args ?? preparerArguments();
    this.#child = spawn(options.python, args, { cwd: options.cwd, env, stdio: ["pipe", "pipe", "pipe"] });
    this.#signal = options.signal;
    this.#exited = new Promise((resolve) => {
      this.#child.once("close", (code, signal) => {
        const how = signal ? `was ended by ${signal}` : `ended with code ${code}`;
        const words = this.#secretsSent || this.#lastWords === "" ? "" : `: ${this.#lastWords}`;
        this.#fail(new UserError("Environment", `the preparer ${how}${words}`));
        resolve();
      });
    });
    this.#child.once("error", (error) => {
      this.#fail(new UserError("Environment", `cannot run ${options.python}: ${error.message}`));
    });
    // A process that has ended cannot be written to; that it has ended is told by "close".
    this.#child.stdin?.on("error", () => {});
    if (this.#child.stdout) createInterface(this.#child.stdout).on("line", (line) => this.#read(line));
    if (this.#child.stderr)
      createInterface(this.#child.stderr).on("line", (line) => {
        if (line.trim() !== "") this.#lastWords = line.trim().slice(0, 300);
      });
    if (this.#signal?.aborted) this.#onAbort();
    this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  send(command: object): void {
    this.#secretsSent = true;
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  /** The next line. @throws PreparerError if it is an error; UserError if the process ends, is silent or called off */
  async next(withinMs: number, what: string): Promise<PreparerEvent> {
    const timer = setTimeout(() => {
      this.#fail(new UserError("Timeout", `the preparer took longer than ${withinMs / 1000} seconds ${what}`));
    }, withinMs);
    try {
      while (this.#events.length === 0 && !this.#failure) await new Promise<void>((wake) => (this.#wake = wake));
    } finally {
      clearTimeout(timer);
    }
    const event = this.#events.shift();
    if (!event) throw this.#failure;
    if (event.event === "error") throw new PreparerError(event.code, event.message);
    return event;
  }

  async end(): Promise<void> {
    this.#signal?.removeEventListener("abort", this.#onAbort);
    if (this.#child.pid === undefined) return;
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), END_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  #read(line: string): void {
    let event: PreparerEvent;
    try {
      event = PreparerEventSchema.parse(JSON.parse(line));
    } catch {
      this.#fail(new UserError("Environment", "the preparer wrote a line that is none of its events"));
      return;
    }
    this.#events.push(event);
    this.#wake?.();
  }

  /** Whatever is wrong, the process is of no more use. */
  #fail(failure: Error): void {
    this.#failure ??= failure;
    this.#child.kill("SIGKILL");
    this.#wake?.();
  }
}
