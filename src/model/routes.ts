/**
 * What a gateway knows of a tenant. The controller feeds routes to gateways (docs/route-feed.md); a gateway keeps the
 * last ones on disk, so that it routes without the controller too.
 */
export interface Route {
  tenant: string;
  /** Names in `Host` that lead to it: lower case, without port. */
  hosts: string[];
  /** serving: send to `address`. parked: hold requests. unavailable: answer 503 with `message`. */
  state: "serving" | "parked" | "unavailable";
  /** `host:port` of the tenant's listener; when serving. */
  address?: string;
  epoch: number;
  /** CamelCase, for logs and metrics: Moving, Pending, Failed, Deleting, … */
  reason?: string;
}

/** One line of the feed (NDJSON). Versions rise within one stream; a stream begins with a snapshot. */
export type RouteFeedLine =
  | { type: "snapshot"; version: number; routes: Route[] }
  | { type: "update"; version: number; routes: Route[]; removed: string[] /* tenants */ }
  | { type: "ping" };

/** A gateway's word that it acts on everything up to `version`. */
export interface RouteAck {
  /** Names one run of a gateway process. */
  gateway: string;
  version: number;
  /** Of each tenant that was parked and is no longer since the last ack: how many requests waited, how many of them failed. */
  parks: Record<string, { parked: number; failed: number }>;
}
