import type { Backoff } from "../model/backoff.ts";
import type { Clock } from "../model/clock.ts";

export interface WorkQueueOptions {
  clock: Pick<Clock, "after" | "now">;
  /** Handlers running at once. */
  concurrency: number;
  retryDelay: Backoff;
  onError: (key: string, error: unknown, attempt: number) => void;
}

/**
 * Level-triggered work by key, as Kubernetes controllers have it: a key that is added while it waits is there once; added
 * while its handler runs, it runs again afterwards; never twice at a time. A handler that throws is retried with
 * backoff; one that returns a number runs again after that many milliseconds.
 */
export class WorkQueue {
  readonly #handler: (key: string) => Promise<number | void>;
  readonly #options: WorkQueueOptions;
  readonly #waiting = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #timers = new Map<string, { cancel: () => void; due: number }>();
  readonly #attempts = new Map<string, number>();
  #closed = false;

  constructor(handler: (key: string) => Promise<number | void>, options: WorkQueueOptions) {
    this.#handler = handler;
    this.#options = options;
  }

  add(key: string): void {
    if (this.#closed) return;
    const timer = this.#timers.get(key);
    if (timer) {
      timer.cancel();
      this.#timers.delete(key);
    }
    this.#waiting.add(key);
    this.#next();
  }

  /** Adds the key after a while; an earlier time that is already set stays. */
  addAfter(key: string, milliseconds: number): void {
    if (this.#closed) return;
    const { clock } = this.#options;
    const due = clock.now() + milliseconds;
    const present = this.#timers.get(key);
    if (present) {
      if (present.due <= due) return;
      present.cancel();
    }
    this.#timers.set(key, { due, cancel: clock.after(milliseconds, () => this.add(key)) });
  }

  /** Takes no more work and waits for what runs. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { cancel } of this.#timers.values()) cancel();
    this.#timers.clear();
    this.#waiting.clear();
    await Promise.all(this.#running.values());
  }

  #next(): void {
    for (const key of this.#waiting) {
      if (this.#running.size >= this.#options.concurrency) return;
      if (this.#running.has(key)) continue;
      this.#waiting.delete(key);
      this.#running.set(
        key,
        this.#run(key).finally(() => {
          this.#running.delete(key);
          this.#next();
        }),
      );
    }
  }

  async #run(key: string): Promise<void> {
    try {
      const again = await this.#handler(key);
      this.#attempts.delete(key);
      if (typeof again === "number") this.addAfter(key, again);
    } catch (error) {
      const attempt = (this.#attempts.get(key) ?? 0) + 1;
      this.#attempts.set(key, attempt);
      this.#options.onError(key, error, attempt);
      this.addAfter(key, this.#options.retryDelay(attempt));
    }
  }
}
