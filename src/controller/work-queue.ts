import type { Backoff } from "../model/backoff.ts";
import type { Clock } from "../model/clock.ts";
import { DistinctQueue } from "./distinct-queue.ts";

/** A kind of work, with slots of its own: what is slow in one lane holds up no other. */
export interface Lane {
  name: string;
  /** Handlers of the lane that run at once. */
  slots: number;
}

export interface WorkQueueOptions {
  clock: Pick<Clock, "after" | "now">;
  /** Which lane a key is in, as things are when it is added. */
  laneOf: (key: string) => Lane;
  retryDelay: Backoff;
  onError: (key: string, error: unknown, attempt: number) => void;
}

interface LaneState {
  slots: number;
  waiting: DistinctQueue;
  running: number;
}

/**
 * Level-triggered work by key, as Kubernetes controllers have it: a key that is added while it waits is there once; added
 * while its handler runs, it runs again afterwards; never twice at a time. A handler that throws is retried with
 * backoff; one that returns a number runs again after that many milliseconds.
 */
export class WorkQueue {
  readonly #handler: (key: string) => Promise<number | void>;
  readonly #options: WorkQueueOptions;
  readonly #lanes = new Map<string, LaneState>();
  /** The lane that a waiting key is in. */
  readonly #laneOf = new Map<string, string>();
  readonly #running = new Map<string, Promise<void>>();
  /** Added while they run. */
  readonly #again = new Set<string>();
  readonly #timers = new Map<string, { cancel: () => void; due: number }>();
  readonly #attempts = new Map<string, number>();
  #closed = false;

  constructor(handler: (key: string) => Promise<number | void>, options: WorkQueueOptions) {
    this.#handler = handler;
    this.#options = options;
  }

  add(key: string): void {
    if (this.#closed) return;
    this.#timers.get(key)?.cancel();
    this.#timers.delete(key);
    if (this.#running.has(key)) {
      this.#again.add(key);
      return;
    }
    const { name, slots } = this.#options.laneOf(key);
    const present = this.#laneOf.get(key);
    if (present !== undefined && present !== name) this.#leave(key, present);
    const lane = this.#lanes.get(name) ?? { slots, waiting: new DistinctQueue(), running: 0 };
    lane.slots = slots;
    lane.waiting.add(key);
    this.#lanes.set(name, lane);
    this.#laneOf.set(key, name);
    this.#next(name);
  }

  /** Adds the key after a while; an earlier time that is already set stays. */
  addAfter(key: string, milliseconds: number): void {
    if (this.#closed) return;
    const { clock } = this.#options;
    const due = clock.now() + milliseconds;
    const present = this.#timers.get(key);
    if (present && present.due <= due) return;
    present?.cancel();
    this.#timers.set(key, { due, cancel: clock.after(milliseconds, () => this.add(key)) });
  }

  /** Takes no more work and waits for what runs. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { cancel } of this.#timers.values()) cancel();
    this.#timers.clear();
    this.#lanes.clear();
    this.#laneOf.clear();
    this.#again.clear();
    await Promise.all(this.#running.values());
  }

  #next(name: string): void {
    const lane = this.#lanes.get(name);
    if (!lane) return;
    while (lane.running < lane.slots) {
      const key = lane.waiting.take();
      if (key === undefined) break;
      this.#laneOf.delete(key);
      lane.running += 1;
      this.#running.set(
        key,
        this.#run(key).finally(() => this.#done(key, name, lane)),
      );
    }
    if (lane.running === 0 && lane.waiting.size === 0) this.#lanes.delete(name);
  }

  #done(key: string, name: string, lane: LaneState): void {
    this.#running.delete(key);
    lane.running -= 1;
    if (this.#again.delete(key)) this.add(key);
    this.#next(name);
  }

  #leave(key: string, name: string): void {
    const lane = this.#lanes.get(name);
    lane?.waiting.delete(key);
    if (lane?.waiting.size === 0 && lane.running === 0) this.#lanes.delete(name);
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
