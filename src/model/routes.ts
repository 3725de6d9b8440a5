/**
 * What a gateway knows of a tenant. The controller feeds routes to gateways (docs/route-feed.md); a gateway keeps the
 * last ones on disk, so that it routes without the controller too.
 */
export interface Route {
  tenant: string;
  /** The name that the tenant had before: what waits for a tenant of that name waits for this one. */
  formerly?: string;
  /** Names in `Host` that lead to it: lower case, without port. */
  hosts: string[];
  /**
   * serving: send to `address`. parked: hold requests. unavailable: answer 503. asleep: nobody has it; hold requests and ask for a wake, but for
   * what can be answered without one. Told only to gateways that say they can wake; for others it is parked.
   */
  state: "serving" | "parked" | "unavailable" | "asleep";
  /** `host:port` of the tenant's listener; when serving. */
  address?: string;
  /** When parked by a move: `host:port` of the shard that still drains it. docs/control-api.md says what is sent there. */
  draining?: string;
  /** Whose listener that is; absent where it is no shard's. */
  shard?: string;
  /** That listener is a dedicated homeserver's, whose requests nobody counts but gateways. */
  dedicated?: true;
  /** What proves to the shard at `address` or `draining` that a request comes from a gateway. Never logged. */
  secret?: string;
  /** Above 0, at most 1: the part of its requests in flight that a tenant keeps while it takes more than its share of a shard. */
  share?: number;
  /** Requests at the homeserver at once, in place of the gateway's own number. */
  places?: number;
  epoch: number;
  /**
   * When asleep: where the tenant's streams ended, as `/sync` gives positions. A client that was told everything up to there has missed nothing.
   * Absent where it is not known, and then each poll wakes.
   */
  position?: string;
  /** Names the release and the configuration that the tenant runs with, or ran with last: its answers to anybody's questions depend on these. */
  revision?: string;
  /** `HOST:PORT` where other servers are to go for its server name; a gateway says so where the tenant itself does not. */
  delegate?: string;
  /** Of a suspended tenant, what it said of itself: JSON by path, which gateways answer with. */
  said?: Record<string, string>;
  /** Of a suspended tenant: a URI at which its clients' users reach somebody who knows why. */
  contact?: string;
  /** `host:port` or `https://host:port` of its authentication service, which answers its clients' logins in its place. */
  authentication?: string;
  /** Its own administrators may come in, from these networks; none: from any. Absent: they may not. */
  adminAccess?: { allowedNetworks: string[] };
  /** CamelCase, for logs and metrics: Moving, Pending, Failed, Deleting, Suspended, FallingAsleep, Asleep, Waking, … */
  reason?: string;
}

const ADDRESS = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})$/;

/** Whether a text is `host:port` as routes have it: what a gateway reads, and so all that may be told to it. */
export function isRouteAddress(text: string): boolean {
  const port = Number(ADDRESS.exec(text)?.[1]);
  return port > 0 && URL.canParse(`http://${text}`);
}

/** Whether a text is where routes have an authentication service. */
export function isAuthenticationAddress(text: string): boolean {
  return isRouteAddress(text.replace(/^https:\/\//, ""));
}

/**
 * Reason of an unavailable route: the tenant is suspended. Gateways refuse its requests in words that neither log clients out nor make other
 * servers give up; a gateway that does not know it answers 503, as for any that is unavailable.
 */
export const SUSPENDED = "Suspended";

/** One line of the feed (NDJSON). Versions rise within one stream; a stream begins with a snapshot. */
export type RouteFeedLine =
  | { type: "snapshot"; stream?: string; version: number; routes: Route[] }
  | { type: "update"; version: number; routes: Route[]; removed: string[] /* tenants */ }
  | { type: "ping" };

/** A gateway's word that it acts on everything up to `version`. */
export interface RouteAck {
  /** Names one run of a gateway process. */
  gateway: string;
  version: number;
  /** The `stream` of the snapshot with which the stream began that told it; a gateway of an earlier version says none. */
  stream?: string;
  /**
   * Since the last ack, of each tenant whose park ended: how many requests waited. `failed`: how many requests that were open at any moment of a
   * park ended with an error, also those that did so after it (docs/route-feed.md).
   */
  parks: Record<string, { parked: number; failed: number }>;
}

/** How many requests dedicated homeservers have answered to this run of a gateway, since it began or the tenant's epoch did. */
export interface AnsweredRequests {
  gateway: string;
  /** Whether these are all of the gateway's: otherwise those that have changed since. */
  all: boolean;
  tenants: Record<string, { epoch: number; requests: number }>;
}

/** Why a gateway asks for a wake. */
export const WAKE_CAUSES = {
  request: "a request of a client",
  poll: "a poll that may have missed something",
  federation: "a request of another server",
} as const;
export type WakeCause = keyof typeof WAKE_CAUSES;

/** Asks for tenants to be woken; docs/route-feed.md, *Wakes*. */
export interface WakeRequest {
  /** Names one run of a gateway process. */
  gateway: string;
  tenants: { tenant: string; why: WakeCause }[];
}
/** Tenants in one request for wakes. */
export const MOST_WAKES = 1000;
