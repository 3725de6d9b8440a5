import type { AnsweredRequests } from "../model/routes.ts";

const TELL_EVERY_MS = 10_000;

export interface Options {
  /** @throws Error where the controller does not take it */
  send(answered: Omit<AnsweredRequests, "gateway">): Promise<void>;
  onProblem(error: unknown): void;
  everyMs?: number | undefined;
}

/**
 * Counts the requests that dedicated homeservers have answered, as nobody else does for the controller. Totals are told, so that one that is
 * told twice counts once; all of them first, to each controller, which counts on from there.
 */
export class AnsweredCounts {
  readonly #options: Options;
  readonly #counts = new Map<string, { epoch: number; requests: number }>();
  readonly #news = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #isConnected = false;
  #hasToldAll = false;
  #telling = false;

  constructor(options: Options) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => void this.#tell(), this.#options.everyMs ?? TELL_EVERY_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** @param epoch of the route that the request was sent by */
  count(tenant: string, epoch: number): void {
    const known = this.#counts.get(tenant);
    if (known?.epoch === epoch) known.requests += 1;
    // A late answer of an earlier epoch is counted by nobody.
    else if (known === undefined || known.epoch < epoch) this.#counts.set(tenant, { epoch, requests: 1 });
    else return;
    this.#news.add(tenant);
  }

  forget(tenant: string): void {
    this.#counts.delete(tenant);
    this.#news.delete(tenant);
  }

  /** With a controller that may be another one. */
  connected(isConnected: boolean): void {
    this.#isConnected = isConnected;
    this.#hasToldAll = false;
    if (isConnected) void this.#tell();
  }

  async #tell(): Promise<void> {
    if (!this.#isConnected || this.#telling || (this.#hasToldAll && this.#news.size === 0)) return;
    this.#telling = true;
    const isAll = !this.#hasToldAll;
    const names = isAll ? [...this.#counts.keys()] : [...this.#news];
    // What is counted from here on is of the next time; so is what is asked for by another connection.
    this.#news.clear();
    this.#hasToldAll = true;
    const tenants: AnsweredRequests["tenants"] = {};
    for (const name of names) {
      const count = this.#counts.get(name);
      if (count) tenants[name] = { ...count };
    }
    try {
      await this.#options.send({ all: isAll, tenants });
    } catch (error) {
      if (isAll) this.#hasToldAll = false;
      for (const name of names) if (this.#counts.has(name)) this.#news.add(name);
      this.#options.onProblem(error);
    } finally {
      this.#telling = false;
    }
  }
}
