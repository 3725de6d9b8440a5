import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { dropOldest } from "../model/drop-oldest.ts";
import type { Route } from "../model/routes.ts";
import { adminPathOf } from "./admin-paths.ts";
import { networkOf } from "./connections.ts";
import { errors, type GatewayError } from "./errors.ts";
import { Networks } from "./trusted-proxies.ts";

/** Of the networks that tenants name, those that were used last: a list is made of the text once. */
const MOST_LISTS = 1_000;
/** An admin UI asks for some dozen things at once, and imports of users are one request after the other. Guesses get no further than that. */
const BURST = 300;
const PER_SECOND = 50;
/** Clients that are remembered; one that is forgotten begins again with a full burst. */
const MOST_CLIENTS = 10_000;

export interface AdminAccessLimits {
  /** Of the cluster, beyond which no tenant can go; none: any. */
  allowedNetworks: readonly string[];
  /** Of the pages that may call; requests that come from no page have none. */
  origins: readonly string[];
}

/** Whether an administrator's request may go to a tenant. Who the administrator is, is Synapse's to say. */
export class AdminAccess {
  readonly #cluster: Networks;
  readonly #origins: ReadonlySet<string>;
  readonly #lists = new Map<string, Networks>();
  readonly #clients = new Map<string, { left: number; at: number }>();
  readonly #now: () => number;

  constructor({ allowedNetworks, origins }: AdminAccessLimits, now: () => number = () => performance.now()) {
    this.#cluster = new Networks(allowedNetworks);
    this.#origins = new Set(origins.map((origin) => (URL.canParse(origin) ? new URL(origin).origin : origin)));
    this.#now = now;
  }

  /** To be asked once for each request, before anything else. @param address of the client @returns why it has to wait, or undefined */
  tooMany(address: string): GatewayError | undefined {
    const now = this.#now();
    const client = networkOf(address);
    const { left, at } = this.#clients.get(client) ?? { left: BURST, at: now };
    const has = Math.min(BURST, left + ((now - at) / 1000) * PER_SECOND);
    this.#clients.delete(client);
    this.#clients.set(client, { left: Math.max(0, has - 1), at: now });
    dropOldest(this.#clients, MOST_CLIENTS);
    return has < 1 ? errors.adminTooMany() : undefined;
  }

  /** @param address of the client @returns why not, or undefined */
  refusal(
    { method = "GET", url = "/", headers }: IncomingMessage,
    route: Route,
    address: string,
  ): GatewayError | undefined {
    const { adminAccess } = route;
    if (!adminAccess || !this.#letsIn(adminAccess.allowedNetworks, address)) return errors.adminAccessClosed();
    if (!this.#mayCall(headers)) return errors.adminOriginRefused();
    const path = adminPathOf(method, url);
    if (path.kind === "pass") return undefined;
    if (path.kind === "elsewhere") return errors.notForAdministrators();
    return errors.adminPathRefused(path.kind === "refused" ? path.why : "it is not classed");
  }

  /** Nothing that is served here is a page: one of this address is of somebody who had its name lead elsewhere before. */
  #mayCall({ origin, "sec-fetch-site": site }: IncomingHttpHeaders): boolean {
    return site !== "same-origin" && (origin === undefined || this.#origins.has(origin));
  }

  #letsIn(allowed: readonly string[], address: string): boolean {
    return [this.#cluster, this.#listOf(allowed)].every((list) => list.isEmpty || list.has(address));
  }

  #listOf(allowed: readonly string[]): Networks {
    const key = allowed.join(" ");
    const list = this.#lists.get(key) ?? new Networks(allowed);
    this.#lists.delete(key);
    this.#lists.set(key, list);
    dropOldest(this.#lists, MOST_LISTS);
    return list;
  }
}
