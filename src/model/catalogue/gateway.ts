import type { Explained } from "./entry.ts";

/** The gateway's own answers, with the status and the errcode that clients see. */
export const GATEWAY_CODES = {
  BadRequest: {
    means: "400 M_UNKNOWN: the request is not valid HTTP, or has no usable `Host`.",
    todo: "Correct the client, or the proxy before the gateway.",
  },
  UnknownHost: {
    means: "404 M_NOT_FOUND: no tenant has the host of the request.",
    todo: "Check the tenant's server name and `public_baseurl`, and that the proxy before the gateway keeps `Host`.",
  },
  NoRoutesYet: {
    means: "503 M_LIMIT_EXCEEDED: the gateway has just started, and has no routes yet.",
    todo: "If it lasts, the gateway does not reach the controller.",
    runbook: "SynapseShardsGatewayNotConnected",
  },
  AdminForbidden: {
    means: "403 M_FORBIDDEN: Synapse's admin API is not reachable from outside.",
    todo: "Use the command line, or open the tenant to its own administrators (`tenant admin-access`).",
  },
  AdminAccessClosed: {
    means:
      "403 M_FORBIDDEN: the tenant is not open to administrators at this address, or the client is in none of the allowed networks.",
    todo: "`tenant admin-access show` says what holds, `tenant admin-access open` opens it.",
  },
  AdminOriginRefused: {
    means: "403 M_FORBIDDEN: a page called the admin API whose origin is not that of an admin UI of the configuration.",
    todo: "Name the admin UI: `gateway.adminAccess.ui`, or its origin in `origins`.",
  },
  AdminTooMany: {
    means: "429 M_LIMIT_EXCEEDED: a client sent more requests to the address for administrators than it may.",
    todo: "Have it wait as long as `Retry-After` says. Behind a proxy, `gateway.trustedProxies` tells clients apart.",
  },
  AdminPathRefused: {
    means:
      "403 M_FORBIDDEN: this part of Synapse's admin API would break a wall between tenants; the message says which.",
    todo: "Have an operator do it: docs/admin-access.md lists what is refused.",
  },
  NotForAdministrators: {
    means:
      "404 M_NOT_FOUND: only the admin API, and what an admin UI signs in with, is at the address for administrators.",
    todo: "Point clients at the tenant's public address.",
  },
  TooLarge: {
    means: "413 M_TOO_LARGE: the request's body is larger than `maxBodyBytes`.",
    todo: "Raise the gateway's `maxBodyBytes`, if larger uploads are to be allowed.",
  },
  HeadersTooLarge: { means: "431 M_TOO_LARGE: the request's header is too large.", todo: "Correct the client." },
  HeadersStalled: { means: "408 M_UNKNOWN: the request's header did not arrive in time." },
  BodyTooSlow: { means: "408 M_UNKNOWN: the request's body arrived too slowly." },
  BodyStalled: { means: "408 M_UNKNOWN: the request's body did not arrive in time." },
  UnsupportedExpectation: {
    means: "417 M_UNKNOWN: the client expects something other than `100-continue`.",
    todo: "Correct the client.",
  },
  ParkFull: {
    means: "503 M_LIMIT_EXCEEDED: the tenant is being moved or started, and too many requests wait for it.",
    todo: "If it repeats, raise the gateway's `parking` bounds.",
    runbook: "SynapseShardsGatewayParkingTooLong",
  },
  ParkTimeout: {
    means: "503 M_LIMIT_EXCEEDED: the tenant is being moved or started, which takes longer than a request may wait.",
    todo: "`tenant describe` says what it waits for.",
    runbook: "SynapseShardsGatewayParkingTooLong",
  },
  MemoryFull: {
    means: "503 M_LIMIT_EXCEEDED: requests that wait take all the memory that they may have together.",
    todo: "If it repeats, raise `maxHeldBytes`, or find out what so many requests wait for.",
    runbook: "SynapseShardsGatewayParkingTooLong",
  },
  DatabaseAway: {
    means: "503 M_LIMIT_EXCEEDED: the tenant's database does not answer.",
    todo: "Check the database server, and the network between it and the shards.",
    runbook: "SynapseShardsGatewayErrors",
  },
  AuthenticationAway: {
    means:
      "503 M_LIMIT_EXCEEDED: nothing listens where the tenant's authentication service is said to be, or its certificate is not trusted.",
    todo: "Start the service; `tenant authentication show` says where it is looked for, the gateway's log what is wrong there.",
  },
  AuthenticationTimeout: {
    means: "504 M_UNKNOWN: the tenant's authentication service did not answer within a minute.",
    todo: "See what the service is busy with, in its log.",
  },
  AuthenticationLoop: {
    means:
      "508 M_UNKNOWN: a request for the tenant's authentication service has come through a gateway already: its URL leads back to one.",
    todo: "Correct the URL: `tenant authentication set`.",
  },
  WrongConnection: {
    means: "421 M_UNKNOWN: the connection was made for another tenant; the client opens another one.",
  },
  ShareFull: {
    means: "429 M_LIMIT_EXCEEDED: the tenant has its share of requests in flight, and too many wait for their turn.",
    todo: "If it lasts, see what the tenant is busy with; `maxInFlightPerTenant` is its share.",
    runbook: "SynapseShardsShardOverloaded",
  },
  ShareTimeout: {
    means: "429 M_LIMIT_EXCEEDED: the request's turn did not come in the time that it may wait.",
    todo: "If it lasts, see what the tenant is busy with; `maxInFlightPerTenant` is its share.",
    runbook: "SynapseShardsShardOverloaded",
  },
  NotInTime: {
    means:
      "408 M_UNKNOWN: a request of another server came while the tenant slept, and the tenant did not wake in time. The other server tries again.",
    todo: "If it repeats, wakes are slow.",
    runbook: "SynapseShardsWakesSlow",
  },
  Unrecognized: {
    means: "404 M_UNRECOGNIZED: no homeserver serves this path; a tenant that sleeps was not woken for it.",
  },
  Unavailable: {
    means: "503 M_UNKNOWN: the tenant is not available; the message has its phase or reason.",
    todo: "`tenant describe` says why.",
    runbook: "SynapseShardsTenantFailed",
  },
  Suspended: {
    means: "403 M_RESOURCE_LIMIT_EXCEEDED: the tenant is suspended by its operator.",
    todo: "`tenant resume` brings it back.",
  },
  JoinElsewhere: {
    means:
      "400 M_UNABLE_TO_GRANT_JOIN: the tenant is suspended, and another server is asked to let the user into the room.",
  },
  JustMoved: {
    means: "503 M_LIMIT_EXCEEDED: the tenant has just moved, and did not get the request. The client tries again.",
  },
  Stopping: { means: "503 M_LIMIT_EXCEEDED: the gateway is being restarted. The client tries again." },
  UpstreamCut: {
    means: "502 M_UNKNOWN: the tenant's connection broke before its answer. It may have acted on the request.",
    todo: "If it repeats, see the shard's log.",
    runbook: "SynapseShardsGatewayErrors",
  },
  UpstreamTimeout: {
    means: "504 M_UNKNOWN: the tenant did not answer in time.",
    todo: "See what the tenant is busy with, in its log.",
    runbook: "SynapseShardsGatewayErrors",
  },
} as const satisfies Record<string, Explained>;

export type GatewayCode = keyof typeof GATEWAY_CODES;
