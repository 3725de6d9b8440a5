/** A request that takes its tenant's homeserver's time counts at most so long: who takes longer waits for another server, and costs nothing. */
export const COUNTED_MS = 2_000;

export interface ShareLimits {
  /** Of one tenant, at its homeserver at once; 0: any number. */
  maxInFlightPerTenant: number;
  /** Of one tenant, waiting for its turn. The same as for parked ones, as those must find room here afterwards. */
  parking: { maxRequests: number; maxBytes: number; maxSeconds: number };
}

export interface ShareRequest {
  readonly tenant: string;
  /** Memory it takes while it waits. Asked for only if it has to. */
  readonly bytes: number;
  /** Its turn. The place is held until `leave`. */
  resume: () => void;
  /** It has waited as long as it may, and has left. */
  expire: () => void;
}

export type ShareBound = "requests" | "bytes" | "seconds";

export interface ShareObserver {
  refused(tenant: string, bound: ShareBound): void;
  waited(seconds: number): void;
}

/** A request's place: among the waiting first, if it has to wait. */
export interface SharePlace {
  readonly request: ShareRequest;
  state: "waiting" | "counted" | "left";
  /** While it waits. */
  bytes: number;
  /** `performance.now()` at which it came into its state. */
  since: number;
}

interface TenantShare {
  /** Both in the order in which they came. */
  counted: SharePlace[];
  waiting: Set<SharePlace>;
  bytes: number;
  /** Of the first deadline, while somebody waits. */
  timer: NodeJS.Timeout | undefined;
  granting: boolean;
}

/**
 * At most so many requests of a tenant at its homeserver at once; the others wait, first come first served. A shard is one
 * process with one thread for Python, where nothing keeps a tenant from taking all the time there is: what it is not
 * given at once, its neighbours get. Who need not wait starts no timer. A tenant's share is kept until it is forgotten: made anew at each
 * request, it would be a burden for the garbage collector.
 */
export class FairShare {
  readonly #limits: ShareLimits;
  readonly #observer: ShareObserver;
  readonly #countedMs: number;
  readonly #shares = new Map<string, TenantShare>();
  readonly #partOf: (tenant: string) => number;

  /** @param partOf what a tenant keeps of its places, above 0 and at most 1: less while it takes too much of its shard's time */
  constructor(
    limits: ShareLimits,
    observer: ShareObserver,
    countedMs = COUNTED_MS,
    partOf: (tenant: string) => number = () => 1,
  ) {
    this.#limits = limits;
    this.#observer = observer;
    this.#countedMs = countedMs;
    this.#partOf = partOf;
  }

  get enabled(): boolean {
    return this.#limits.maxInFlightPerTenant > 0;
  }

  /** @returns its place, `counted` if it may go on at once; undefined if too many wait */
  enter(request: ShareRequest): SharePlace | undefined {
    const share = this.#share(request.tenant);
    const place: SharePlace = { request, state: "counted", bytes: 0, since: performance.now() };
    this.#dropOverdue(share, place.since);
    if (share.counted.length < this.#placesOf(request.tenant) && share.waiting.size === 0) {
      share.counted.push(place);
      return place;
    }
    place.bytes = request.bytes;
    const bound =
      share.waiting.size >= this.#limits.parking.maxRequests
        ? "requests"
        : share.bytes + place.bytes > this.#limits.parking.maxBytes
          ? "bytes"
          : undefined;
    if (bound) {
      this.#observer.refused(request.tenant, bound);
      return undefined;
    }
    place.state = "waiting";
    share.waiting.add(place);
    share.bytes += place.bytes;
    this.#watch(request.tenant, share);
    return place;
  }

  /** Frees the place, wherever it is; the next takes it. Once is enough, more does no harm. */
  leave(place: SharePlace): void {
    const { tenant } = place.request;
    const share = this.#shares.get(tenant);
    if (place.state === "left" || !share) return;
    if (place.state === "waiting") this.#stopWaiting(share, place);
    else remove(share.counted, place);
    place.state = "left";
    this.#grant(tenant, share);
  }

  /** The tenant is gone; who still waits there is told so when it is their turn. */
  forget(tenant: string): void {
    if (this.#shares.get(tenant)?.waiting.size === 0) this.#shares.delete(tenant);
  }

  /** Tenants with waiting requests, and how many. */
  *sizes(): Generator<[tenant: string, size: number]> {
    for (const [tenant, { waiting }] of this.#shares) if (waiting.size > 0) yield [tenant, waiting.size];
  }

  #placesOf(tenant: string): number {
    return Math.max(1, Math.floor(this.#limits.maxInFlightPerTenant * this.#partOf(tenant)));
  }

  #share(tenant: string): TenantShare {
    let share = this.#shares.get(tenant);
    if (!share) {
      share = { counted: [], waiting: new Set(), bytes: 0, timer: undefined, granting: false };
      this.#shares.set(tenant, share);
    }
    return share;
  }

  #stopWaiting(share: TenantShare, place: SharePlace): void {
    share.waiting.delete(place);
    share.bytes -= place.bytes;
    this.#observer.waited((performance.now() - place.since) / 1000);
  }

  #dropOverdue(share: TenantShare, now: number): void {
    while (share.counted[0] && now - share.counted[0].since >= this.#countedMs) share.counted.shift();
  }

  #grant(tenant: string, share: TenantShare): void {
    // Whose turn it is may leave at once, because the route changed: no deeper than this.
    if (share.granting || share.waiting.size === 0) return;
    share.granting = true;
    const places = this.#placesOf(tenant);
    for (const place of share.waiting) {
      if (share.counted.length >= places) break;
      this.#stopWaiting(share, place);
      place.state = "counted";
      place.since = performance.now();
      share.counted.push(place);
      place.request.resume();
    }
    share.granting = false;
    this.#watch(tenant, share);
  }

  /** Sets the timer for what comes first: a place that no longer counts, or the longest waiting one's deadline. */
  #watch(tenant: string, share: TenantShare): void {
    const [first] = share.waiting;
    if (!first) {
      clearTimeout(share.timer);
      share.timer = undefined;
      return;
    }
    if (share.timer) return;
    const oldest = share.counted[0];
    const due = Math.min(
      first.since + this.#limits.parking.maxSeconds * 1000,
      oldest ? oldest.since + this.#countedMs : Number.POSITIVE_INFINITY,
    );
    share.timer = setTimeout(
      () => {
        share.timer = undefined;
        this.#passDeadlines(tenant, share);
      },
      Math.max(1, Math.ceil(due - performance.now())),
    );
  }

  #passDeadlines(tenant: string, share: TenantShare): void {
    const now = performance.now();
    this.#dropOverdue(share, now);
    for (const place of share.waiting) {
      if (now - place.since < this.#limits.parking.maxSeconds * 1000) break;
      this.#stopWaiting(share, place);
      place.state = "left";
      this.#observer.refused(tenant, "seconds");
      place.request.expire();
    }
    this.#grant(tenant, share);
  }
}

function remove(places: SharePlace[], place: SharePlace): void {
  // As a rule, the only one.
  if (places.at(-1) === place) return void places.pop();
  const index = places.indexOf(place);
  if (index !== -1) places.splice(index, 1);
}

/** Below these, bytes are moved at the speed of the client's line, in threads of their own. */
const MEDIA = /^\/_matrix\/(?:media|client\/[^/]+\/media|federation\/[^/]+\/media)\//;
const SYNC = /^\/_matrix\/client\/(?:[^/]+\/){1,2}sync$/;
const EVENTS = /^\/_matrix\/client\/[^/]+\/events$/;
/** Not `URLSearchParams`, which takes longer than all else here. A client that encodes plain letters and digits is counted, which does no harm. */
const POSITION = /[?&](?:since|pos)=/;
const WAITS = /[?&]timeout=0*[1-9]/;

/**
 * Whether a request counts against its tenant's share: whether it takes the homeserver's time rather than waits there. Not:
 * - long polls, which wait for something to happen: `/sync` from where the last one ended (`since`; sliding sync: `pos`) with a `timeout`,
 *   and `/events`. An initial `/sync` is answered at once whatever its `timeout`, and is the dearest request there is: it counts.
 * - media, up and down, which take as long as the client's line.
 * - `OPTIONS`: browsers' preflights cost nothing, and a refused one hides the answer.
 * What else waits for long (joins through other servers, `/keys/query`, …) counts for `COUNTED_MS` at most.
 */
export function countsForShare(method: string, target: string): boolean {
  if (method === "OPTIONS") return false;
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  if (MEDIA.test(path) || EVENTS.test(path)) return false;
  if (mark === -1 || !SYNC.test(path)) return true;
  const query = target.slice(mark);
  return !(WAITS.test(query) && POSITION.test(query));
}
