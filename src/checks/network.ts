import { Resolver } from "node:dns/promises";
import { request as requestPlain } from "node:http";
import { request } from "node:https";
import { isIP } from "node:net";
import { getCACertificates, type DetailedPeerCertificate, type TLSSocket } from "node:tls";
import { X509Certificate } from "node:crypto";
import type { PublicAccess } from "../model/public-access.ts";
import { isPrivate } from "./private-networks.ts";

/** Other servers wait about as long. */
const REQUEST_MS = 10_000;
const DNS_MS = 3_000;
const DNS_TRIES = 2;
/** What is asked for is a few hundred bytes. */
const MAX_BODY_BYTES = 64 * 1024;
/** Of one name; more are not connected to. */
export const MAX_ADDRESSES = 4;

export interface NetworkOptions {
  access: () => PublicAccess;
  /** Whether private addresses may be connected to: where homeservers are neighbours on one machine or network. */
  allowPrivate: boolean;
  /** PEM of the cluster's own certificate authorities, which the world does not know. */
  ownAuthorities?: () => readonly string[];
  /** PEM of further ones that count as known to the world. */
  authorities?: () => readonly string[];
  timeoutMs?: number;
}

/** DNS did not answer, which says nothing of the name. */
export class DnsFailure extends Error {}

export interface Shown {
  certificate: DetailedPeerCertificate;
  /** What is wrong with it, as OpenSSL and Node call it; absent: nothing. */
  problem?: string;
  /** Its chain leads to the cluster's own authority. */
  isOwn: boolean;
}

export interface HttpsAnswer extends Shown {
  status: number;
  location: string | undefined;
  /** Text; empty where it is too large. */
  body: string;
}

export interface HttpsQuestion {
  /** Name in SNI, for which the certificate has to be; undefined for an address. */
  servername: string;
  /** `Host`. */
  host: string;
  address: string;
  port: number;
  path: string;
}

/** The Internet as checks see it: names from DNS alone, and connections to public addresses only. */
export class Network {
  readonly #options: NetworkOptions;

  constructor(options: NetworkOptions) {
    this.#options = options;
  }

  /** Addresses that the gateway is known to have. */
  get own(): readonly string[] {
    return this.#options.access().addresses;
  }

  /** At most `MAX_ADDRESSES`, IPv4 first; none where the name is not there. @throws DnsFailure */
  async addresses(host: string): Promise<string[]> {
    const bare = host.replace(/^\[|\]$/g, "");
    if (isIP(bare) !== 0) return [bare];
    const resolver = this.#resolver();
    const found = await Promise.all([
      ask(() => resolver.resolve4(host), `A ${host}`),
      ask(() => resolver.resolve6(host), `AAAA ${host}`),
    ]);
    return found.flat().slice(0, MAX_ADDRESSES);
  }

  /** In the order in which they are to be tried. @throws DnsFailure */
  async srv(name: string): Promise<{ host: string; port: number }[]> {
    const resolver = this.#resolver();
    const found = await ask(() => resolver.resolveSrv(name), `SRV ${name}`);
    return found
      .toSorted((a, b) => a.priority - b.priority || b.weight - a.weight)
      .filter(({ name: target }) => target !== "" && target !== ".")
      .map(({ name: target, port }) => ({ host: target.toLowerCase().replace(/\.$/, ""), port }));
  }

  /** Texts of TXT records. @throws DnsFailure */
  async txt(name: string): Promise<string[]> {
    const resolver = this.#resolver();
    return (await ask(() => resolver.resolveTxt(name), `TXT ${name}`)).map((parts) => parts.join(""));
  }

  mayConnect(address: string): boolean {
    return this.#options.allowPrivate || this.own.includes(address) || !isPrivate(address);
  }

  /** One request, whatever the certificate; nothing is followed. @throws Error where nobody answers in time */
  get({ servername, host, address, port, path }: HttpsQuestion): Promise<HttpsAnswer> {
    if (!this.mayConnect(address)) throw new Error(`${address} is a private address`);
    const { timeoutMs = REQUEST_MS, authorities, ownAuthorities } = this.#options;
    const own = ownAuthorities?.() ?? [];
    const to = this.placeOf(address, port);
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(timeoutMs);
      const call = request({
        ...to,
        // An address has no SNI; Node then checks the certificate for the address.
        ...(isIP(servername) === 0 ? { servername } : { servername: "" }),
        path,
        headers: { host, accept: "application/json", "user-agent": "synapse-shards" },
        agent: false,
        rejectUnauthorized: false,
        ca: [...getCACertificates("default"), ...(authorities?.() ?? []), ...own],
        signal,
      });
      let shown: Shown | undefined;
      call.once("socket", (socket) =>
        (socket as TLSSocket).once("secureConnect", () => (shown = shownBy(socket as TLSSocket, own))),
      );
      call.once("response", (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (text: string) => {
          body += text;
          if (body.length <= MAX_BODY_BYTES) return;
          response.destroy(new Error(`the answer is longer than ${MAX_BODY_BYTES} bytes`));
        });
        response.once("error", reject);
        response.once("end", () => {
          const { statusCode = 0, headers } = response;
          if (shown) resolve({ ...shown, status: statusCode, location: headers.location, body });
          else reject(new Error("there was no TLS"));
        });
      });
      call.once("error", (error) =>
        reject(signal.aborted ? new Error(`no answer within ${timeoutMs / 1000} s`) : error),
      );
      call.end();
    });
  }

  /** One request without TLS, of which nothing is followed. @throws Error where nobody answers in time */
  getPlain({
    host,
    address,
    port,
    path,
  }: Omit<HttpsQuestion, "servername">): Promise<{ status: number; body: string }> {
    if (!this.mayConnect(address)) throw new Error(`${address} is a private address`);
    const { timeoutMs = REQUEST_MS } = this.#options;
    const signal = AbortSignal.timeout(timeoutMs);
    const headers = { host, "user-agent": "synapse-shards" };
    return new Promise((resolve, reject) => {
      const call = requestPlain({ ...this.placeOf(address, port), path, headers, agent: false, signal }, (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (text: string) => {
          body += text;
          if (body.length > MAX_BODY_BYTES) response.destroy(new Error("the answer is too long"));
        });
        response.once("error", reject);
        response.once("end", () => resolve({ status: response.statusCode ?? 0, body }));
      });
      call.once("error", (error) =>
        reject(signal.aborted ? new Error(`no answer within ${timeoutMs / 1000} s`) : error),
      );
      call.end();
    });
  }

  /** Where an address is reached from here. */
  placeOf(address: string, port: number): { host: string; port: number } {
    const { addresses, connectTo } = this.#options.access();
    const rule = addresses.includes(address) ? connectTo.find((one) => one.port === port) : undefined;
    if (!rule) return { host: address, port };
    const at = rule.to.lastIndexOf(":");
    return { host: rule.to.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(rule.to.slice(at + 1)) };
  }

  #resolver(): Resolver {
    const resolver = new Resolver({ timeout: DNS_MS, tries: DNS_TRIES });
    const { dnsServers } = this.#options.access();
    if (dnsServers.length > 0) resolver.setServers(dnsServers);
    return resolver;
  }
}

const NOTHING = new Set(["ENODATA", "ENOTFOUND"]);

async function ask<T>(question: () => Promise<T[]>, what: string): Promise<T[]> {
  try {
    return await question();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== undefined && NOTHING.has(code)) return [];
    throw new DnsFailure(`${what}: ${code ?? (error as Error).message}`, { cause: error });
  }
}

function shownBy(socket: TLSSocket, own: readonly string[]): Shown {
  const certificate = socket.getPeerCertificate(true);
  const problem = socket.authorized ? undefined : String(socket.authorizationError);
  const ours = new Set(own.map((pem) => new X509Certificate(pem).fingerprint256));
  return { certificate, isOwn: ours.has(rootOf(certificate).fingerprint256), ...(problem ? { problem } : {}) };
}

function rootOf(certificate: DetailedPeerCertificate): DetailedPeerCertificate {
  let at = certificate;
  for (let depth = 0; depth < 10; depth += 1) {
    const issuer = at.issuerCertificate as DetailedPeerCertificate | undefined;
    if (!issuer || issuer.fingerprint256 === at.fingerprint256) break;
    at = issuer;
  }
  return at;
}
