/** How long a request counts as taking its homeserver's time: one that takes longer waits for another server, and costs nothing. */
export const COUNTED_MS = 2_000;

/** Of an authentication service, which is a server of its own: all that it has not answered yet counts, for as long as it may take. */
export const AUTHENTICATION_MS = 60_000;

/** Of a tenant that has less than one place; else one request that waited for another server would keep it away for minutes. */
const LONGEST_REST_MS = 10_000;

/** A tenant with so small a part still takes too much although what computes has been held back: what was thought to wait does not. */
const ALL_COUNT_BELOW = 1 / 8;
/** Requests that wait, where they count: what is answered sooner did not wait. */
const WAITING_COUNTED_MS = 250;

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
  /** It is of those that wait rather than compute, and counts all the same (see `counts`). */
  readonly waits?: boolean;
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
  /** `performance.now()` until which a tenant with less than one place has none. */
  restsUntil: number;
  /** Of the first deadline, while somebody waits. */
  timer: NodeJS.Timeout | undefined;
  granting: boolean;
}

/**
 * Bounds the requests of a tenant at its homeserver at once; the others wait, first come first served. A shard is one
 * process with one thread for Python, where nothing keeps a tenant from taking all the time there is: what it is not
 * given at once, its neighbours get. A request that need not wait starts no timer. A tenant's share is kept until it is forgotten: made again at each
 * request, it would be a burden for the garbage collector.
 *
 * A tenant that takes more than its CPU budget keeps a part of its places, which may be less than one: then it has one at a time, and none for
 * a while after each request, so that it is at its homeserver for that part of the time.
 */
export class FairShare {
  readonly #limits: ShareLimits;
  readonly #observer: ShareObserver;
  readonly #countedMs: number;
  readonly #shares = new Map<string, TenantShare>();
  readonly #partOf: (tenant: string) => number;
  readonly #ownPlacesOf: (tenant: string) => number | undefined;

  /**
   * @param partOf what a tenant keeps of its places, above 0 and at most 1: less while it takes too much of its shard's time
   * @param placesOf a tenant's own number of places, where it has one
   */
  constructor(
    limits: ShareLimits,
    observer: ShareObserver,
    countedMs = COUNTED_MS,
    partOf: (tenant: string) => number = () => 1,
    placesOf: (tenant: string) => number | undefined = () => undefined,
  ) {
    this.#limits = limits;
    this.#observer = observer;
    this.#countedMs = countedMs;
    this.#partOf = partOf;
    this.#ownPlacesOf = placesOf;
  }

  /** @param computes whether it takes the homeserver's time (`countsForShare`); for a tenant that keeps very little everything counts */
  counts(tenant: string, computes: boolean): boolean {
    return this.#wholePlacesOf(tenant) > 0 && (computes || this.#partOf(tenant) <= ALL_COUNT_BELOW);
  }

  /** @returns its place, `counted` if it may go on at once; undefined if too many wait */
  enter(request: ShareRequest): SharePlace | undefined {
    const share = this.#share(request.tenant);
    const place: SharePlace = { request, state: "counted", bytes: 0, since: performance.now() };
    this.#dropOverdue(request.tenant, share, place.since);
    if (share.waiting.size === 0 && this.#hasRoom(request.tenant, share, place.since)) {
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
    else if (remove(share.counted, place)) this.#rest(tenant, share, performance.now() - place.since);
    place.state = "left";
    this.#grant(tenant, share);
  }

  /** The tenant is gone: who still waits there goes on at once, and learns it. */
  forget(tenant: string): void {
    const share = this.#shares.get(tenant);
    if (!share) return;
    this.#shares.delete(tenant);
    clearTimeout(share.timer);
    for (const place of share.waiting) {
      this.#stopWaiting(share, place);
      place.state = "left";
      place.request.resume();
    }
  }

  /** Tenants with waiting requests, and how many. */
  *sizes(): Generator<[tenant: string, size: number]> {
    for (const [tenant, { waiting }] of this.#shares) if (waiting.size > 0) yield [tenant, waiting.size];
  }

  #placesOf(tenant: string): number {
    return this.#wholePlacesOf(tenant) * this.#partOf(tenant);
  }

  /** 0: any number. */
  #wholePlacesOf(tenant: string): number {
    return this.#ownPlacesOf(tenant) ?? this.#limits.maxInFlightPerTenant;
  }

  #hasRoom(tenant: string, share: TenantShare, now: number): boolean {
    return share.counted.length < Math.max(1, Math.floor(this.#placesOf(tenant))) && now >= share.restsUntil;
  }

  /** @param took how long a request was at the homeserver */
  #rest(tenant: string, share: TenantShare, took: number): void {
    const places = this.#placesOf(tenant);
    if (places >= 1) return;
    share.restsUntil = performance.now() + Math.min(LONGEST_REST_MS, took * (1 / places - 1));
    // It was set for what came first before.
    clearTimeout(share.timer);
    share.timer = undefined;
  }

  #share(tenant: string): TenantShare {
    let share = this.#shares.get(tenant);
    if (!share) {
      share = { counted: [], waiting: new Set(), bytes: 0, restsUntil: 0, timer: undefined, granting: false };
      this.#shares.set(tenant, share);
    }
    return share;
  }

  #stopWaiting(share: TenantShare, place: SharePlace): void {
    share.waiting.delete(place);
    share.bytes -= place.bytes;
    this.#observer.waited((performance.now() - place.since) / 1000);
  }

  #dropOverdue(tenant: string, share: TenantShare, now: number): void {
    for (let oldest = share.counted[0]; oldest; oldest = share.counted[0]) {
      const longest = this.#longestCounted(tenant, oldest);
      if (now - oldest.since < longest) return;
      share.counted.shift();
      this.#rest(tenant, share, longest);
    }
  }

  /** A tenant that takes too much is not believed that its long requests wait for others. */
  #longestCounted(tenant: string, { request }: SharePlace): number {
    return request.waits ? WAITING_COUNTED_MS : this.#countedMs / this.#partOf(tenant);
  }

  #grant(tenant: string, share: TenantShare): void {
    // Whose turn it is may leave at once, because the route changed: no deeper than this.
    if (share.granting || share.waiting.size === 0) return;
    share.granting = true;
    for (const place of share.waiting) {
      const now = performance.now();
      if (!this.#hasRoom(tenant, share, now)) break;
      this.#stopWaiting(share, place);
      place.state = "counted";
      place.since = now;
      share.counted.push(place);
      place.request.resume();
    }
    share.granting = false;
    this.#watch(tenant, share);
  }

  /** Sets the timer for what comes first: the end of a rest, a place that no longer counts, or the longest waiting one's deadline. */
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
      oldest ? oldest.since + this.#longestCounted(tenant, oldest) : Math.max(share.restsUntil, performance.now()),
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
    this.#dropOverdue(tenant, share, now);
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

/** @returns whether it was there */
function remove(places: SharePlace[], place: SharePlace): boolean {
  // As a rule, the only one.
  const index = places.at(-1) === place ? places.length - 1 : places.indexOf(place);
  if (index === -1) return false;
  places.splice(index, 1);
  return true;
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
