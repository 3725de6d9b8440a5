import type { ParkingLimits } from "./config.ts";
import { ParkQueue, type ParkRefusal, type ParkTicket } from "./park-queue.ts";

/** How soon requests are tried again at an address that refused them, when no new route comes: a shard that restarts keeps its ports. */
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 1_000;

export interface ParkedRequest {
  tenant: string;
  /** Memory it takes while it waits. */
  bytes: number;
  /** When its time began to run (`performance.now()`), if it has waited before. */
  since?: number;
  /** How long it may wait at most, in milliseconds, if that is shorter than for others. */
  patienceMs?: number;
  /** Its turn: look at the route again and try. */
  resume: () => void;
  /** It has waited as long as it may, and has left the queue. */
  expire: () => void;
}

/** How waiting ended. */
export const PARK_OUTCOMES = {
  sent: "the tenant is there, and the request goes on to it",
  timeout: "it had waited as long as it may",
  full: "there was no room for it to wait",
  failed: "the tenant became unavailable or was removed, or the gateway stops",
  left: "the client went away",
} as const;
export type ParkOutcome = keyof typeof PARK_OUTCOMES;

export interface ParkingObserver {
  refused(tenant: string, bound: ParkRefusal | "seconds"): void;
  /** Also called, with 0, for those that found no room. */
  waited(seconds: number, outcome: ParkOutcome): void;
}

class Ticket implements ParkTicket {
  readonly tenant: string;
  bytes: number;
  waiting = true;
  readonly request: ParkedRequest;
  readonly since: number;
  timer: NodeJS.Timeout | undefined;

  constructor(request: ParkedRequest) {
    this.request = request;
    this.tenant = request.tenant;
    this.bytes = request.bytes;
    this.since = request.since ?? performance.now();
  }
}

export type { Ticket as ParkingTicket };

/** Gives the queue its clock: deadlines of requests, and retries at addresses that refused. */
export class Parking {
  readonly #queue: ParkQueue<Ticket>;
  readonly #limits: ParkingLimits;
  readonly #observer: ParkingObserver;
  /** Since when each tenant has had waiting requests without interruption (`performance.now()`). */
  readonly #since = new Map<string, number>();
  readonly #retries = new Map<string, { timer: NodeJS.Timeout | undefined; delayMs: number }>();

  constructor(limits: ParkingLimits, observer: ParkingObserver) {
    this.#queue = new ParkQueue(limits);
    this.#limits = limits;
    this.#observer = observer;
  }

  /** Lets a request wait. @returns its ticket, or undefined when the tenant's bounds are reached */
  enter(request: ParkedRequest): Ticket | undefined {
    const ticket = new Ticket(request);
    const refusal = this.#queue.enter(ticket);
    if (refusal) {
      this.#observer.refused(request.tenant, refusal);
      this.#observer.waited(0, "full");
      return undefined;
    }
    if (!this.#since.has(ticket.tenant)) this.#since.set(ticket.tenant, performance.now());
    const mostMs = this.#limits.maxSeconds * 1000 - (performance.now() - ticket.since);
    ticket.timer = setTimeout(
      () => {
        this.#observer.refused(ticket.tenant, "seconds");
        this.leave(ticket, "timeout");
        request.expire();
      },
      Math.min(mostMs, request.patienceMs ?? mostMs),
    );
    return ticket;
  }

  /** Back to waiting, in its old place, after it was tried in vain. */
  waitAgain(ticket: Ticket): void {
    ticket.waiting = true;
  }

  leave(ticket: Ticket, outcome: Exclude<ParkOutcome, "full">): void {
    clearTimeout(ticket.timer);
    this.#queue.leave(ticket);
    this.#observer.waited((performance.now() - ticket.since) / 1000, outcome);
    if (this.#queue.size(ticket.tenant) > 0) return;
    this.#since.delete(ticket.tenant);
    this.#stopRetries(ticket.tenant);
  }

  /** A new route came: all who wait look at it, first come first served. */
  release(tenant: string): void {
    this.#stopRetries(tenant);
    for (const ticket of this.#queue.release(tenant)) ticket.request.resume();
  }

  /** The address refused: try again soon, and less and less often. */
  retryLater(tenant: string): void {
    const retry = this.#retries.get(tenant) ?? { timer: undefined, delayMs: RETRY_FIRST_MS };
    this.#retries.set(tenant, retry);
    if (retry.timer) return;
    retry.timer = setTimeout(() => {
      retry.timer = undefined;
      retry.delayMs = Math.min(retry.delayMs * 2, RETRY_MAX_MS);
      for (const ticket of this.#queue.release(tenant)) ticket.request.resume();
    }, retry.delayMs);
  }

  size(tenant: string): number {
    return this.#queue.size(tenant);
  }

  sizes(): Iterable<[tenant: string, size: number]> {
    return this.#queue.sizes();
  }

  /** For how long each tenant has had waiting requests without interruption, in seconds. */
  *durations(): Generator<[tenant: string, seconds: number]> {
    const now = performance.now();
    for (const [tenant, since] of this.#since) yield [tenant, (now - since) / 1000];
  }

  /** How long the request that waits longest has waited, in seconds; 0 if none waits. */
  oldestSeconds(): number {
    const now = performance.now();
    let oldest = 0;
    for (const { since } of this.#queue.first()) oldest = Math.max(oldest, (now - since) / 1000);
    return oldest;
  }

  #stopRetries(tenant: string): void {
    clearTimeout(this.#retries.get(tenant)?.timer);
    this.#retries.delete(tenant);
  }
}
