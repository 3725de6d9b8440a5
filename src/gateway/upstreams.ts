import { Pool, type Dispatcher } from "undici";
import type { RouteChange } from "./route-table.ts";

/** Above the longest `/sync` that clients ask for (30 s as a rule, minutes at times): who waits decides, not the gateway. */
const HEADERS_TIMEOUT_MS = 15 * 60_000;
/** Between two pieces of a response. Does not count while the client is the slow one. */
const BODY_TIMEOUT_MS = 5 * 60_000;
/** Below the 60 s after which a homeserver closes an idle connection, so that requests seldom meet a closing one. */
const KEEP_ALIVE_MS = 30_000;
const CONNECT_TIMEOUT_MS = 5_000;
const MAX_RESPONSE_HEADER_BYTES = 64 * 1024;

/** The connections to tenants' listeners: one pool for each address that is in use. */
export class Upstreams {
  readonly #pools = new Map<string, Pool>();

  get size(): number {
    return this.#pools.size;
  }

  /** @param address `host:port` */
  get(address: string): Dispatcher {
    let pool = this.#pools.get(address);
    if (!pool) {
      // As many connections as there are requests: each long poll occupies one, and waiting behind a long poll takes half a minute.
      pool = new Pool(`http://${address}`, {
        pipelining: 1,
        allowH2: false,
        headersTimeout: HEADERS_TIMEOUT_MS,
        bodyTimeout: BODY_TIMEOUT_MS,
        keepAliveTimeout: KEEP_ALIVE_MS,
        keepAliveMaxTimeout: KEEP_ALIVE_MS,
        connectTimeout: CONNECT_TIMEOUT_MS,
        maxHeaderSize: MAX_RESPONSE_HEADER_BYTES,
      });
      this.#pools.set(address, pool);
    }
    return pool;
  }

  /** Lets go of addresses that routes left. What is in flight there comes to its end. */
  follow(changes: readonly RouteChange[]): void {
    for (const { before, after } of changes) {
      if (before?.address !== undefined && before.address !== after?.address) this.#retire(before.address);
    }
  }

  async destroy(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map((pool) => pool.destroy()));
  }

  #retire(address: string): void {
    const pool = this.#pools.get(address);
    this.#pools.delete(address);
    pool?.close().catch(() => {});
  }
}
