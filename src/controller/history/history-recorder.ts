import type { Logger } from "pino";
import { timeText, type Clock } from "../../model/clock.ts";
import { messageOf } from "../../model/errors.ts";
import {
  FINEST_MS,
  historyOf,
  LEVELS,
  levelOf,
  merged,
  windowOf,
  type History,
  type Range,
  type Sample,
} from "../../model/history.ts";
import type { HistoryStore } from "../../ports/history-store.ts";
import type { PrometheusHistory } from "./prometheus.ts";
import { namedFor } from "./sample.ts";

const EARLY_MS = 1_000;

export interface HistoryParts {
  store: HistoryStore;
  clock: Clock;
  log: Pick<Logger, "warn">;
  /** Answers in place of the store, while it can. */
  elsewhere?: Pick<PrometheusHistory, "read">;
}

/** Takes down how the cluster is, once a minute, whatever number of tenants it has, and answers how it was. */
export class HistoryRecorder {
  readonly #parts: HistoryParts;
  #cancel: () => void = () => {};
  #running: Promise<void> | undefined;
  #isClosed = false;
  #hasFailed = false;
  #isTidy = false;
  #isElsewhereAway = false;
  #since: string | undefined;

  constructor(parts: HistoryParts) {
    this.#parts = parts;
  }

  /** @param look how it is; what happened counts from `since` on */
  start(look: (since: string) => Record<string, number>): void {
    if (this.#isClosed) return;
    const { clock } = this.#parts;
    this.#since ??= timeText(clock.now());
    // At the end of each minute of the clock, however long the last look took.
    this.#cancel = clock.after(FINEST_MS - (clock.now() % FINEST_MS), () => {
      this.#running = this.#turn(look).finally(() => this.start(look));
    });
  }

  /** Waits for the look that is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#running;
    await this.#parts.store.close();
  }

  async read(range: Range, shard?: string): Promise<History> {
    const { elsewhere, log } = this.#parts;
    if (!elsewhere) return this.#ownHistory(range, shard);
    try {
      const found = await elsewhere.read(range, shard);
      this.#isElsewhereAway = false;
      return found;
    } catch (error) {
      const problem = `the plots are of the controller's own history, as Prometheus has none: ${messageOf(error)}`;
      if (!this.#isElsewhereAway) log.warn({ why: messageOf(error) }, "Prometheus has no history for the plots");
      this.#isElsewhereAway = true;
      return { ...(await this.#ownHistory(range, shard)), problem };
    }
  }

  async #ownHistory(range: Range, shard?: string): Promise<History> {
    const { store, clock } = this.#parts;
    const now = clock.now();
    const { from, to } = windowOf(range, now);
    const samples: Sample[] = [];
    let begin = from;
    // Each level goes on, in finer steps, where the coarser one ends.
    for (const { step } of LEVELS.slice(0, levelOf(range) + 1).toReversed()) {
      const found = await store.read(step, begin, to);
      samples.push(...found);
      const last = found.at(-1);
      if (last) begin = last.at + step;
    }
    return historyOf(samples, range, now, namedFor(shard));
  }

  async #turn(look: (since: string) => Record<string, number>): Promise<void> {
    const { store, clock, log } = this.#parts;
    const now = clock.now();
    try {
      // A clock that was ahead has left samples that are yet to come.
      if (!this.#isTidy) await this.#prune(Number.NEGATIVE_INFINITY, now);
      this.#isTidy = true;
      const since = this.#since ?? timeText(now);
      this.#since = timeText(now);
      // Of the minute that has just ended; a timer is at most some milliseconds early.
      const at = Math.floor((now + EARLY_MS) / FINEST_MS) * FINEST_MS - FINEST_MS;
      await store.write([{ step: FINEST_MS, at, count: 1, values: look(since) }]);
      for (const index of LEVELS.keys()) if (index > 0) await this.#roll(index, now);
      await this.#prune(now, now);
      this.#hasFailed = false;
    } catch (error) {
      if (!this.#hasFailed)
        log.warn({ why: messageOf(error) }, "the history for the plots cannot be written; tried again");
      this.#hasFailed = true;
    }
  }

  /** Makes the steps of a level that have ended since its last one, from the level below. */
  async #roll(index: number, now: number): Promise<void> {
    const { store } = this.#parts;
    const [{ step }, finer] = [LEVELS[index]!, LEVELS[index - 1]!];
    const end = Math.floor(now / step) * step;
    const last = await store.last(step);
    const begin = last === undefined ? Number.NEGATIVE_INFINITY : last + step;
    if (begin >= end) return;
    const samples = await store.read(finer.step, begin, end);
    if (samples.length > 0) await store.write(merged(samples, step).map((sample) => ({ step, ...sample })));
  }

  /** Removes what a level no longer keeps at a time, and what begins from `to` on. */
  async #prune(at: number, to: number): Promise<void> {
    for (const { step, kept } of LEVELS) await this.#parts.store.prune(step, at - kept, to);
  }
}
