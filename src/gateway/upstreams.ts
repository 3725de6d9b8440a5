import { createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { Client, type Dispatcher } from "undici";
import type { RouteChange } from "./route-table.ts";

/** Above the longest `/sync` that clients ask for (30 s as a rule, minutes at times): who waits decides, not the gateway. */
const HEADERS_TIMEOUT_MS = 15 * 60_000;
/** Between two pieces of a response. Does not count while the client is the slow one. */
const BODY_TIMEOUT_MS = 5 * 60_000;
/** Below the 60 s after which a homeserver closes an idle connection, so that requests seldom meet a closing one. */
const KEEP_ALIVE_MS = 30_000;
const CONNECT_TIMEOUT_MS = 5_000;
const MAX_RESPONSE_HEADER_BYTES = 64 * 1024;
/** Of one homeserver, which answers some dozens of requests at once: what a burst of long polls leaves is not kept forever. */
const MAX_IDLE = 64;

/** By what name a server with TLS is asked; undefined: it speaks HTTP. */
export function tlsHostOf(address: string): string | undefined {
  return address.startsWith("https://") ? new URL(address).host : undefined;
}

/** Authorities that Node knows, and the machine's, which Synapse goes by. Read once, as that takes a tenth of a second. */
let authorities: SecureContext | undefined;
function trusted(): SecureContext {
  const all = () => [...new Set([...getCACertificates("default"), ...getCACertificates("system")])];
  return (authorities ??= createSecureContext({ ca: all() }));
}

/** A connection to a homeserver, taken for one request at a time. */
export class Connection {
  readonly #client: Client;
  readonly #site: Site;

  constructor(site: Site) {
    this.#site = site;
    const hasTls = tlsHostOf(site.address) !== undefined;
    this.#client = new Client(hasTls ? site.address : `http://${site.address}`, {
      ...(hasTls ? { connect: { secureContext: trusted() } } : {}),
      pipelining: 1,
      allowH2: false,
      headersTimeout: HEADERS_TIMEOUT_MS,
      bodyTimeout: BODY_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS,
      connectTimeout: CONNECT_TIMEOUT_MS,
      maxHeaderSize: MAX_RESPONSE_HEADER_BYTES,
    });
  }

  dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    this.#client.dispatch(options, handler);
  }

  /** The request is over, once. After an error the connection is not used again. */
  release(intact: boolean): void {
    const { idle, retired } = this.#site;
    if (intact && !retired && idle.length < MAX_IDLE) idle.push(this);
    else this.close();
  }

  /** What is in flight comes to its end. */
  close(): void {
    this.#site.all.delete(this);
    this.#client.close().catch(() => {});
  }

  destroy(): Promise<void> {
    return this.#client.destroy();
  }
}

interface Site {
  address: string;
  all: Set<Connection>;
  /** The last one used is the next to be used, so that those that are not needed close. */
  idle: Connection[];
  retired: boolean;
}

/**
 * The connections to tenants' listeners. As many as there are requests: each long poll occupies one, and waiting behind a long poll takes half a
 * minute. Not undici's `Pool`, which looks for a free one past all that are occupied: with 2,000 long polls at an address, other requests there cost
 * half as much again.
 */
export class Upstreams {
  readonly #sites = new Map<string, Site>();

  /** Addresses in use. */
  get size(): number {
    return this.#sites.size;
  }

  /** @param address `host:port`, or `https://host:port` @returns a connection, or what will be one, to be released */
  take(address: string): Connection {
    let site = this.#sites.get(address);
    if (!site) this.#sites.set(address, (site = { address, all: new Set(), idle: [], retired: false }));
    const idle = site.idle.pop();
    if (idle) return idle;
    const connection = new Connection(site);
    site.all.add(connection);
    return connection;
  }

  /** Lets go of addresses that routes left. What is in flight there comes to its end. */
  follow(changes: readonly RouteChange[]): void {
    for (const { before, after } of changes) {
      if (before?.address !== undefined && before.address !== after?.address) this.#retire(before.address);
      const drained = before?.draining;
      if (drained !== undefined && drained !== after?.draining && drained !== after?.address) this.#retire(drained);
      const service = before?.authentication;
      if (service !== undefined && service !== after?.authentication) this.#retire(service);
    }
  }

  async destroy(): Promise<void> {
    const connections = [...this.#sites.values()].flatMap(({ all }) => [...all]);
    this.#sites.clear();
    await Promise.all(connections.map((connection) => connection.destroy()));
  }

  #retire(address: string): void {
    const site = this.#sites.get(address);
    if (!site) return;
    this.#sites.delete(address);
    site.retired = true;
    for (const connection of site.idle.splice(0)) connection.close();
  }
}
