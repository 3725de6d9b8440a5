import type { IncomingMessage } from "node:http";
import { BlockList, isIP } from "node:net";
import { plainAddress } from "./connections.ts";

/** Who asks, and how, as far as it can be known. */
export interface Client {
  address: string;
  protocol: "http" | "https";
}

/** What is wrong with an entry of `trustedProxies`, or undefined. */
export function proxyProblem(entry: string): string | undefined {
  const [address = "", prefix, ...rest] = entry.split("/");
  const family = isIP(address);
  const most = family === 6 ? 128 : 32;
  const valid = prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= most);
  return family !== 0 && valid && rest.length === 0 ? undefined : "an IP address or a network such as 10.0.0.0/8";
}

/** Addresses and networks, as `proxyProblem` accepts them. */
export class Networks {
  readonly #list = new BlockList();
  readonly isEmpty: boolean;

  constructor(entries: readonly string[]) {
    this.isEmpty = entries.length === 0;
    for (const entry of entries) {
      const [address = "", prefix] = entry.split("/");
      const family = isIP(address) === 6 ? "ipv6" : "ipv4";
      if (prefix === undefined) this.#list.addAddress(address, family);
      else this.#list.addSubnet(address, Number(prefix), family);
    }
  }

  /** @param address as `plainAddress` gives it */
  has(address: string): boolean {
    const family = isIP(address);
    return family !== 0 && this.#list.check(address, family === 6 ? "ipv6" : "ipv4");
  }
}

/**
 * The proxies whose word about the client is believed: those before the gateway, such as an ingress controller. Of `X-Forwarded-For` the last
 * address that is not one of theirs is the client; what stands before it the client may have written itself.
 */
export class TrustedProxies {
  readonly #networks: Networks;

  constructor(entries: readonly string[]) {
    this.#networks = new Networks(entries);
  }

  /** @param protocol of the connection itself */
  clientOf(request: IncomingMessage, protocol: "http" | "https"): Client {
    const peer = plainAddress(request.socket.remoteAddress);
    if (this.#networks.isEmpty || !this.trusts(peer)) return { address: peer, protocol };
    const { "x-forwarded-for": chain = "", "x-forwarded-proto": said } = request.headers;
    const addresses = String(chain)
      .split(",")
      .map((part) => plainAddress(part.trim()));
    const client = addresses.findLast((address) => isIP(address) !== 0 && !this.trusts(address));
    return { address: client ?? peer, protocol: said === "https" || said === "http" ? said : protocol };
  }

  /** @param address as `plainAddress` gives it */
  trusts(address: string): boolean {
    return this.#networks.has(address);
  }
}
