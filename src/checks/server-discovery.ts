import { isIP } from "node:net";
import { SERVER_WELL_KNOWN } from "../model/delegation.ts";
import { messageOf } from "../model/errors.ts";
import { serverNameProblem } from "../model/names.ts";
import type { HttpsAnswer, Network } from "./network.ts";

const FEDERATION_PORT = 8448;
/** As Synapse follows them. */
const MAX_REDIRECTS = 5;

export type Way = "address" | "port" | "well-known" | "srv" | "srv-deprecated" | "default";

/** Where other servers go for a server name. */
export interface FederationTarget {
  way: Way;
  /** To be looked up. */
  host: string;
  port: number;
  /** For which its certificate has to be. */
  certificateName: string;
  /** `Host` of requests. */
  hostHeader: string;
}

export type WellKnown =
  | { state: "found"; delegate: string; answer: HttpsAnswer }
  | { state: "invalid"; problem: string }
  | { state: "missing"; problem: string };

export interface Discovery {
  target: FederationTarget;
  /** Absent where nobody asks for it. */
  wellKnown?: WellKnown;
  /** SRV records that were found on the way, of names and their targets. */
  srv: { name: string; deprecated: boolean; target: string }[];
}

/**
 * Resolves a server name as the specification's *Server discovery* has it, step by step, but for what is kept from earlier times.
 * @throws DnsFailure
 */
export async function discover(serverName: string, network: Network): Promise<Discovery> {
  const direct = byItself(serverName);
  if (direct) return { target: direct, srv: [] };
  const wellKnown = await serverWellKnown(serverName, network);
  const srv: Discovery["srv"] = [];
  if (wellKnown.state !== "found") return { target: await bySrv(serverName, network, srv), wellKnown, srv };
  const delegated = byItself(wellKnown.delegate) ?? (await bySrv(wellKnown.delegate, network, srv));
  const way = delegated.way === "default" || delegated.way === "port" ? "well-known" : delegated.way;
  return { target: { ...delegated, way }, wellKnown, srv };
}

/** Steps 1 and 2: an address, or a name with a port. */
function byItself(serverName: string): FederationTarget | undefined {
  const [, host = "", port] = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(serverName) ?? [];
  const bare = host.replace(/^\[|\]$/g, "");
  const isAddress = isIP(bare) !== 0;
  if (!isAddress && port === undefined) return undefined;
  return {
    way: isAddress ? "address" : "port",
    host: bare,
    port: Number(port ?? FEDERATION_PORT),
    certificateName: bare,
    hostHeader: serverName,
  };
}

/** Steps 4 to 6: SRV records, the present ones first, then port 8448. */
async function bySrv(name: string, network: Network, seen: Discovery["srv"]): Promise<FederationTarget> {
  const common = { certificateName: name, hostHeader: name };
  for (const [service, way] of [
    ["_matrix-fed._tcp", "srv"],
    ["_matrix._tcp", "srv-deprecated"],
  ] as const) {
    const [first] = await network.srv(`${service}.${name}`);
    if (!first) continue;
    seen.push({
      name: `${service}.${name}`,
      deprecated: way === "srv-deprecated",
      target: `${first.host}:${first.port}`,
    });
    return { ...common, ...first, way };
  }
  return { ...common, way: "default", host: name, port: FEDERATION_PORT };
}

/** Step 3. */
async function serverWellKnown(serverName: string, network: Network): Promise<WellKnown> {
  let answer: HttpsAnswer;
  try {
    answer = await getFollowing(`https://${serverName}${SERVER_WELL_KNOWN}`, network);
  } catch (error) {
    return { state: "missing", problem: messageOf(error) };
  }
  if (answer.problem !== undefined && !answer.isOwn)
    return { state: "missing", problem: `its certificate is refused (${answer.problem})` };
  if (answer.status !== 200) return { state: "missing", problem: `the answer is ${answer.status}` };
  try {
    const { "m.server": delegate } = JSON.parse(answer.body) as Record<string, unknown>;
    if (typeof delegate !== "string") return { state: "invalid", problem: "it has no text m.server" };
    const problem = serverNameProblem(delegate);
    return problem === undefined ? { state: "found", delegate, answer } : { state: "invalid", problem };
  } catch {
    return { state: "invalid", problem: "it is no JSON" };
  }
}

/**
 * Gets a document as browsers and other servers do.
 * @throws Error saying why there is none
 */
export async function getFollowing(start: string, network: Network): Promise<HttpsAnswer> {
  let url = new URL(start);
  for (let hops = 0; ; hops += 1) {
    const answer = await getAt(url, network);
    const isRedirect = answer.status >= 300 && answer.status < 400 && answer.location !== undefined;
    if (!isRedirect) return answer;
    if (answer.problem !== undefined && !answer.isOwn) return answer;
    if (hops >= MAX_REDIRECTS) throw new Error(`it is redirected more than ${MAX_REDIRECTS} times`);
    if (!URL.canParse(answer.location!, url.href)) throw new Error("it is redirected to what is no URL");
    url = new URL(answer.location!, url.href);
    if (url.protocol !== "https:") throw new Error(`it is redirected to ${url.protocol}//, where https:// is needed`);
  }
}

/** Tries the addresses of a URL's host one after the other. @throws Error */
async function getAt(url: URL, network: Network): Promise<HttpsAnswer> {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const addresses = await network.addresses(host);
  if (addresses.length === 0) throw new Error(`${host} has no address in DNS`);
  let failure: unknown;
  for (const address of addresses) {
    try {
      return await network.get({
        servername: host,
        host: url.host,
        address,
        port: Number(url.port || 443),
        path: `${url.pathname}${url.search}`,
      });
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
