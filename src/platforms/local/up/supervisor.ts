import { exponential } from "../../../model/backoff.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../../../model/errors.ts";

const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 10_000;
/** A process that ran for this long is thought sound: its next end counts as the first. */
const HEALTHY_MS = 30_000;

/** Something that runs, as seen by who keeps it running. */
export interface Running {
  pid: number;
  /** Resolves, and never rejects, with how it ended, in words. */
  ended: Promise<string>;
}

export interface SupervisorOptions {
  /** In words, for lines of the log. */
  title: string;
  /** Starts it and waits until it is ready. Rejects when it cannot, with nothing left running. */
  launch: (signal: AbortSignal) => Promise<Running>;
  onLine: (line: string) => void;
  /** Whether the next start takes no time, so that after the first end in a while it is not put off either. */
  isAtHand?: () => boolean;
  now?: () => number;
  delay?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** One process alone: there is nothing to be out of step with. */
const delayAfter = exponential(FIRST_DELAY_MS, LONGEST_DELAY_MS, () => 1);

/** How long to wait before the restart, by the number of ends in short order. */
export function restartDelay(failures: number): number {
  return delayAfter(Math.max(1, failures));
}

/** Keeps one process running from `start` to `release`. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #released = new AbortController();
  #running: Running | undefined;
  #loop: Promise<void> | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** The process that runs now; undefined between its end and the next start. */
  get running(): Running | undefined {
    return this.#running;
  }

  /** The first start; its failure is the caller's. */
  async start(signal?: AbortSignal): Promise<void> {
    this.#running = await this.#options.launch(
      signal ? AbortSignal.any([signal, this.#released.signal]) : this.#released.signal,
    );
    this.#loop = this.#keepRunning();
  }

  /** From now on it is left alone. @returns the process, if it runs, for the caller to stop */
  async release(): Promise<Running | undefined> {
    this.#released.abort();
    await this.#loop;
    return this.#running;
  }

  async #keepRunning(): Promise<void> {
    const { title, launch, onLine, isAtHand, now = Date.now, delay = pause } = this.#options;
    const { signal } = this.#released;
    const released = new Promise<undefined>((resolve) =>
      signal.addEventListener("abort", () => resolve(undefined), { once: true }),
    );
    let failures = 0;
    let startedAt = now();
    while (!signal.aborted) {
      const how = await Promise.race([this.#running?.ended ?? Promise.resolve(""), released]);
      if (signal.aborted) return;
      const ended = this.#running !== undefined;
      this.#running = undefined;
      if (now() - startedAt >= HEALTHY_MS) failures = 0;
      failures += 1;
      const wait = failures === 1 && isAtHand?.() ? 0 : restartDelay(failures);
      const when = wait === 0 ? "now" : `in ${wait / 1000} s`;
      if (ended) onLine(`${title} ended unexpectedly (${how}); starting it again ${when}`);
      if (wait > 0) await delay(wait, signal).catch(() => {});
      if (signal.aborted) return;
      startedAt = now();
      try {
        this.#running = await launch(signal);
        startedAt = now();
        onLine(`${title} runs again (process ${this.#running.pid})`);
      } catch (error) {
        if (signal.aborted) return;
        onLine(`${title} cannot be started: ${messageOf(error)}; next try in ${restartDelay(failures + 1) / 1000} s`);
      }
    }
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal });
}
