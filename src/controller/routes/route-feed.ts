import { randomUUID } from "node:crypto";
import { SteadyClock, type Clock } from "../../model/clock.ts";
import { SUSPENDED, type AnsweredRequests, type Route, type RouteAck, type RouteFeedLine } from "../../model/routes.ts";

/** How long a move waits for a gateway's word; one that is slower meets refused connections and holds the requests itself. */
const ACK_TIMEOUT_MS = 2_000;
const PING_INTERVAL_MS = 5_000;
/** Lines a gateway may be behind before it is cut off and begins again with a snapshot. */
const MAX_BACKLOG = 10_000;

/** Many times the gateways that are there at once. */
const MOST_KNOWN = 100;

export interface ParkCount {
  parked: number;
  failed: number;
}

interface Subscriber {
  gateway: string;
  /** Names this stream; another one of the same gateway has another name. */
  stream: string;
  /** It asks for wakes. */
  wakes: boolean;
  connectedAt: Date;
  acked: number;
  lines: RouteFeedLine[];
  closed: boolean;
  wake: () => void;
}

/** Tells gateways the routes, and knows what each of them has acted upon. docs/route-feed.md is the contract. */
export class RouteFeed {
  readonly #routes = new Map<string, Route>();
  readonly #subscribers = new Set<Subscriber>();
  readonly #parks = new Map<string, ParkCount>();
  readonly #waiters = new Set<() => void>();
  /** By shard; what its listeners want to hear from gateways. */
  readonly #secrets = new Map<string, string>();
  readonly #listeners = new Set<(tenant: string) => void>();
  readonly #clock: Pick<Clock, "now" | "after">;
  readonly #returns = new Set<(since: number) => void>();
  /** Runs of gateways that were connected at some time, the last ones. */
  readonly #known = new Set<string>();
  /** Since when no gateway has been connected, where one was. */
  #aloneSince: number | undefined;
  #version = 0;
  /** The requests that a tenant may have at its homeserver at once, where that is its own; set by the `Controller`. */
  placesOf: (tenant: string) => number | undefined = () => undefined;
  /** Told what gateways have counted; set by the `Controller`. */
  onAnswered: (requests: AnsweredRequests) => void = () => {};
  /** The operator's, for suspended tenants that have none of their own. */
  adminContact: string | undefined;

  constructor(clock: Pick<Clock, "now" | "after"> = new SteadyClock()) {
    this.#clock = clock;
  }

  /** @param listener called with each tenant of which gateways have counted something, at any time after the move as well */
  onCounts(listener: (tenant: string) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * @param listener called when the first gateway comes after none was there, with the time since which that was so. Not where it is one
   * that was connected before: that one has only been cut off from here, and served meanwhile.
   */
  onReturn(listener: (since: number) => void): void {
    this.#returns.add(listener);
  }

  /** Announces a tenant's route if it is another than before. @returns the version that has it */
  publish(given: Route): number {
    const route = this.#filledIn(given);
    const present = this.#routes.get(route.tenant);
    if (present && JSON.stringify(present) === JSON.stringify(route)) return this.#version;
    this.#routes.set(route.tenant, route);
    return this.#broadcast([route], []);
  }

  #filledIn(given: Route): Route {
    const secret = given.shard === undefined ? undefined : this.#secrets.get(given.shard);
    const places = this.placesOf(given.tenant);
    const contact = given.reason === SUSPENDED ? (given.contact ?? this.adminContact) : undefined;
    const known = {
      ...given,
      ...(places === undefined ? {} : { places }),
      ...(contact === undefined ? {} : { contact }),
    };
    return secret === undefined ? known : { ...known, secret };
  }

  /** A shard's listeners want this secret from now on, and the one before for a while: its tenants' routes say so. */
  setSecret(shard: string, secret: string | undefined): void {
    if (secret === undefined || this.#secrets.get(shard) === secret) return;
    this.#secrets.set(shard, secret);
    const changed = [...this.#routes.values()].filter((route) => route.shard === shard);
    for (const route of changed) this.#routes.set(route.tenant, { ...route, secret });
    if (changed.length > 0)
      this.#broadcast(
        changed.map((route) => ({ ...route, secret })),
        [],
      );
  }

  secretOf(shard: string | undefined): string | undefined {
    return shard === undefined ? undefined : this.#secrets.get(shard);
  }

  forgetShard(shard: string): void {
    this.#secrets.delete(shard);
  }

  /** The route of a tenant that has another name now, in one line: at no moment does its host lead nowhere. */
  rename(former: string, given: Route): void {
    this.#parks.delete(former);
    if (!this.#routes.delete(former)) return void this.publish(given);
    const route = this.#filledIn(given);
    this.#routes.set(route.tenant, route);
    this.#broadcast([route], [former]);
  }

  remove(tenant: string): number {
    if (!this.#routes.delete(tenant)) return this.#version;
    return this.#broadcast([], [tenant]);
  }

  get(tenant: string): Route | undefined {
    return this.#routes.get(tenant);
  }

  get version(): number {
    return this.#version;
  }

  gateways(): { id: string; routesVersion: number; connectedAt: string }[] {
    return [...this.#subscribers].map((s) => ({
      id: s.gateway,
      routesVersion: s.acked,
      connectedAt: s.connectedAt.toISOString(),
    }));
  }

  /**
   * Waits until every connected gateway acts on `version`.
   * @returns false if one of them did not say so in time; see docs/route-feed.md why that is no harm
   */
  async settled(version: number, timeoutMs = ACK_TIMEOUT_MS): Promise<boolean> {
    const deadline = this.#clock.now() + timeoutMs;
    while ([...this.#subscribers].some((s) => s.acked < version)) {
      const left = deadline - this.#clock.now();
      if (left <= 0) return false;
      await this.#nextAck(left);
    }
    return true;
  }

  /** How many requests of the tenant waited and failed since the last call, over all gateways. */
  takeParkCount(tenant: string): ParkCount {
    const count = this.#parks.get(tenant) ?? { parked: 0, failed: 0 };
    this.#parks.delete(tenant);
    return count;
  }

  acknowledge(ack: RouteAck): void {
    for (const subscriber of this.#subscribers) {
      if (subscriber.gateway !== ack.gateway) continue;
      // Of a stream that has ended: versions of another controller may be higher, and what it acts on is not what this stream told.
      if (ack.stream !== undefined && ack.stream !== subscriber.stream) continue;
      if (ack.version <= this.#version) subscriber.acked = Math.max(subscriber.acked, ack.version);
    }
    for (const [tenant, { parked, failed }] of Object.entries(ack.parks)) {
      if (!this.#routes.has(tenant)) continue;
      const sum = this.#parks.get(tenant) ?? { parked: 0, failed: 0 };
      this.#parks.set(tenant, { parked: sum.parked + parked, failed: sum.failed + failed });
      if (parked + failed > 0) for (const listener of this.#listeners) listener(tenant);
    }
    this.#wakeWaiters();
  }

  /** What a gateway has counted. */
  answered(requests: AnsweredRequests): void {
    this.onAnswered(requests);
  }

  /** Whether there are gateways, and all of them ask for tenants to be woken: else nobody would. */
  get wakes(): boolean {
    return this.#subscribers.size > 0 && [...this.#subscribers].every(({ wakes }) => wakes);
  }

  /** @param options.wakes it holds requests for tenants that sleep, and asks for them to be woken */
  subscribe(gateway: string, { wakes = false } = {}): AsyncIterable<RouteFeedLine> & { close(): void } {
    const stream = randomUUID();
    const subscriber: Subscriber = {
      gateway,
      stream,
      wakes,
      connectedAt: new Date(this.#clock.now()),
      acked: -1,
      lines: [{ type: "snapshot", stream, version: this.#version, routes: toldTo(wakes, [...this.#routes.values()]) }],
      closed: false,
      wake: () => {},
    };
    this.#subscribers.add(subscriber);
    this.#noteArrival(gateway);
    const close = () => {
      subscriber.closed = true;
      this.#leave(subscriber);
      subscriber.wake();
      this.#wakeWaiters();
    };
    return { close, [Symbol.asyncIterator]: () => linesOf(subscriber, close) };
  }

  close(): void {
    for (const subscriber of this.#subscribers) {
      subscriber.closed = true;
      subscriber.wake();
    }
    this.#subscribers.clear();
    this.#wakeWaiters();
  }

  #noteArrival(gateway: string): void {
    const since = this.#aloneSince;
    this.#aloneSince = undefined;
    if (since !== undefined && !this.#known.has(gateway)) for (const listener of this.#returns) listener(since);
    this.#known.delete(gateway);
    this.#known.add(gateway);
    for (const oldest of this.#known) {
      if (this.#known.size <= MOST_KNOWN) return;
      this.#known.delete(oldest);
    }
  }

  #leave(subscriber: Subscriber): void {
    if (this.#subscribers.delete(subscriber) && this.#subscribers.size === 0) this.#aloneSince = this.#clock.now();
  }

  #broadcast(routes: Route[], removed: string[]): number {
    this.#version += 1;
    for (const subscriber of this.#subscribers) {
      subscriber.lines.push({
        type: "update",
        version: this.#version,
        routes: toldTo(subscriber.wakes, routes),
        removed,
      });
      if (subscriber.lines.length > MAX_BACKLOG) {
        subscriber.closed = true;
        this.#leave(subscriber);
      }
      subscriber.wake();
    }
    return this.#version;
  }

  #nextAck(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        this.#waiters.delete(done);
        resolve();
      };
      const cancel = this.#clock.after(timeoutMs, done);
      this.#waiters.add(done);
    });
  }

  #wakeWaiters(): void {
    for (const waiter of this.#waiters) waiter();
  }
}

/** A gateway that knows nothing of sleep holds requests as at a move. */
function toldTo(wakes: boolean, routes: Route[]): Route[] {
  if (wakes) return routes;
  return routes.map((route) => (route.state === "asleep" ? { ...route, state: "parked" } : route));
}

async function* linesOf(subscriber: Subscriber, close: () => void): AsyncGenerator<RouteFeedLine, void, undefined> {
  try {
    while (!subscriber.closed) {
      const line = subscriber.lines.shift();
      yield line ?? { type: "ping" };
      if (subscriber.lines.length === 0 && !subscriber.closed) await nextLine(subscriber);
    }
  } finally {
    close();
  }
}

/** Resolves when there is a line to send, or when it is time for a ping. */
function nextLine(subscriber: Subscriber): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, PING_INTERVAL_MS);
    subscriber.wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}
