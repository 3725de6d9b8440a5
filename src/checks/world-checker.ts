import { isIP } from "node:net";
import { CLIENT_WELL_KNOWN, delegateOf, isDelegable } from "../model/delegation.ts";
import { messageOf } from "../model/errors.ts";
import { hostOf } from "../model/names.ts";
import type { Finding, FindingCode } from "../model/tenant-check.ts";
import type { CheckSubject, TenantChecker } from "../ports/tenant-checker.ts";
import { certificateFinding } from "./certificate-findings.ts";
import { DnsFailure, type HttpsAnswer, type Network } from "./network.ts";
import { discover, getFollowing, type Discovery, type FederationTarget } from "./server-discovery.ts";
import { readServerKeys } from "./server-keys.ts";

const LOCAL = /(^|\.)(localhost|local|internal|lan|home\.arpa)$/;
/** The machine has no way there at all, which says nothing of who is there. */
const NO_WAY = new Set(["ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"]);

export interface WorldCheckerOptions {
  network: Network;
  now: () => number;
  /** Homeservers are neighbours on one machine, and nobody else knows them. */
  isLocal: boolean;
}

/** Checks tenants as the world sees them. */
export class WorldChecker implements TenantChecker {
  readonly #options: WorldCheckerOptions;

  constructor(options: WorldCheckerOptions) {
    this.#options = options;
  }

  async check(subject: CheckSubject): Promise<Finding[]> {
    const { network } = this.#options;
    const hidden = notPublic(subject);
    if (hidden !== undefined) {
      const message = `${hidden} is known on this machine or network only: nothing of it can be seen from outside`;
      return [{ code: "name-not-public", severity: "info", subject: hidden, message }];
    }
    const run = new Check(subject, this.#options);
    try {
      const discovery = await discover(subject.serverName, network);
      await run.dns();
      await run.client();
      await run.federation(discovery);
    } catch (error) {
      if (!(error instanceof DnsFailure)) throw error;
      run.add("dns-failed", "error", subject.serverName, `DNS does not answer: ${error.message}`, {
        remedy: "see whether the machine's DNS servers, or publicAccess.dnsServers, can be reached; then check again",
      });
    }
    return run.findings;
  }
}

/** One check, as far as it has come. */
class Check {
  readonly findings: Finding[] = [];
  readonly #subject: CheckSubject;
  readonly #options: WorldCheckerOptions;
  readonly #certificates = new Set<string>();

  constructor(subject: CheckSubject, options: WorldCheckerOptions) {
    this.#subject = subject;
    this.#options = options;
  }

  add(
    code: FindingCode,
    severity: Finding["severity"],
    subject: string,
    message: string,
    { remedy }: { remedy?: string } = {},
  ): void {
    this.findings.push({ code, severity, subject, message, ...(remedy === undefined ? {} : { remedy }) });
  }

  /** The homeserver's own host leads to the gateway. */
  async dns(): Promise<void> {
    const { network } = this.#options;
    const { hostname } = new URL(this.#subject.url);
    if (isIP(hostname.replace(/^\[|\]$/g, "")) !== 0) return;
    const addresses = await network.addresses(hostname);
    const { own } = network;
    const remedy =
      own.length > 0
        ? `let ${hostname} have the addresses ${own.join(", ")} (A and AAAA records)`
        : `give ${hostname} an A or AAAA record with the gateway's address`;
    if (addresses.length === 0)
      return this.add("dns-missing", "error", hostname, `${hostname} has no address in DNS`, { remedy });
    const hidden = addresses.filter((address) => !network.mayConnect(address));
    if (hidden.length > 0)
      this.add(
        "dns-private",
        "error",
        hostname,
        `${hostname} leads to ${hidden.join(", ")}, which is no public address`,
        {
          remedy: `${remedy}; where the network itself is private, name its addresses in publicAccess.addresses`,
        },
      );
    const elsewhere = own.length === 0 ? [] : addresses.filter((address) => !own.includes(address));
    if (elsewhere.length > 0)
      return this.add(
        "dns-elsewhere",
        "warning",
        hostname,
        `${hostname} leads to ${elsewhere.join(", ")}, which is not among publicAccess.addresses`,
        {
          remedy: `${remedy}; if that is what is before the gateway, add it to publicAccess.addresses`,
        },
      );
    if (hidden.length === 0) this.add("dns-ok", "ok", hostname, `${hostname} leads to ${addresses.join(", ")}`);
  }

  /** What clients need. */
  async client(): Promise<void> {
    const { url, serverName } = this.#subject;
    const { protocol, host } = new URL(url);
    if (protocol !== "https:")
      this.add(
        "client-api-unreachable",
        "warning",
        url,
        "its URL is not https, which clients refuse outside of this machine",
        {
          remedy: "set public_baseurl in its configuration to its https URL, or create it with --domain",
        },
      );
    else await this.#clientApi(`${url.replace(/\/$/, "")}/_matrix/client/versions`, host);
    if (isDelegable(serverName)) await this.#clientDiscovery(hostOf(serverName), url);
  }

  async #clientApi(url: string, host: string): Promise<void> {
    const { network } = this.#options;
    const remedy = "see that https at this name reaches the gateway: DNS, the firewall, what is before the gateway";
    try {
      const answer = await getFollowing(url, network);
      this.#certificate(new URL(url).hostname, answer);
      const { versions } = asObject(answer.body);
      if (answer.status === 200 && Array.isArray(versions))
        return this.add("client-api-ok", "ok", url, "the client API answers");
      const what = answer.status === 200 ? "with something else" : `with ${answer.status}`;
      this.add("client-api-unreachable", "error", url, `${host} answers ${what}`, {
        remedy: this.#notOurs(answer) ?? remedy,
      });
    } catch (error) {
      if (error instanceof DnsFailure) throw error;
      this.add("client-api-unreachable", "error", url, `the client API does not answer: ${messageOf(error)}`, {
        remedy,
      });
    }
  }

  async #clientDiscovery(name: string, url: string): Promise<void> {
    const { network } = this.#options;
    const at = `https://${name}${CLIENT_WELL_KNOWN}`;
    const wanted = url.replace(/\/$/, "");
    const remedy =
      `serve ${JSON.stringify({ "m.homeserver": { base_url: wanted } })} at ${at} with the header ` +
      `Access-Control-Allow-Origin: *, or redirect it to ${wanted}${CLIENT_WELL_KNOWN}`;
    try {
      const answer = await getFollowing(at, network);
      if (answer.problem !== undefined && !answer.isOwn)
        throw new Error(`its certificate is refused (${answer.problem})`);
      if (answer.status !== 200) throw new Error(`the answer is ${answer.status}`);
      const homeserver = asObject(answer.body)["m.homeserver"];
      const base =
        typeof homeserver === "object" && homeserver !== null
          ? (homeserver as Record<string, unknown>)["base_url"]
          : undefined;
      if (typeof base !== "string") throw new Error("it has no m.homeserver.base_url");
      if (base.replace(/\/$/, "") === wanted)
        return this.add("client-discovery-ok", "ok", at, `clients are led to ${wanted}`);
      this.add(
        "client-discovery-wrong",
        "error",
        at,
        `clients are led to ${JSON.stringify(base.slice(0, 200))} and not to ${wanted}`,
        { remedy },
      );
    } catch (error) {
      if (error instanceof DnsFailure) throw error;
      const message = `clients have to be given ${wanted}, as ${at} has nothing for them: ${messageOf(error)}`;
      this.add("client-discovery-missing", "warning", at, message, { remedy });
    }
  }

  /** What other servers need. */
  async federation(discovery: Discovery): Promise<void> {
    const { serverName, url } = this.#subject;
    for (const { name, deprecated, target } of discovery.srv)
      if (deprecated)
        this.add("srv-deprecated", "warning", name, `${name} leads to ${target}; servers will stop looking at it`, {
          remedy: `name it ${name.replace("_matrix.", "_matrix-fed.")}`,
        });
      else this.add("srv-present", "info", name, `${name} leads to ${target}`);
    const reached = await this.#homeserverAt(discovery.target);
    const expected = delegateOf(serverName, url);
    const { wellKnown, target } = discovery;
    if (!wellKnown) return;
    const host = hostOf(serverName);
    if (wellKnown.state === "found") this.#certificate(host, wellKnown.answer);
    const name = `https://${host}/.well-known/matrix/server`;
    const remedy =
      expected === undefined
        ? "give the tenant an https URL (public_baseurl), which other servers can be led to"
        : `let ${host} lead to the gateway, or serve ${JSON.stringify({ "m.server": expected })} at ${name}, or redirect that to ` +
          `https://${expected.replace(/:443$/, "")}/.well-known/matrix/server`;
    if (wellKnown.state === "found") {
      if (reached === "foreign" || (reached === "nobody" && wellKnown.delegate !== expected))
        this.add("delegation-wrong", "error", name, `other servers are led to ${wellKnown.delegate}`, { remedy });
      else this.add("delegation-ok", "ok", name, `other servers are led to ${wellKnown.delegate}`);
    } else if (reached === "ours")
      this.add(
        "delegation-ok",
        "ok",
        serverName,
        `other servers find it by ${target.way === "default" ? "port 8448 of its name" : "an SRV record"}`,
      );
    else if (wellKnown.state === "invalid")
      this.add("delegation-invalid", "error", name, `${name} is not as it has to be: ${wellKnown.problem}`, { remedy });
    else
      this.add("delegation-missing", "error", name, `other servers are not led to it: ${wellKnown.problem}`, {
        remedy,
      });
  }

  /** Asks there for its keys, as another server does. */
  async #homeserverAt({
    host,
    port,
    certificateName,
    hostHeader,
  }: FederationTarget): Promise<"ours" | "foreign" | "nobody"> {
    const { network } = this.#options;
    const at = `${host}:${port}`;
    const remedy = `see that port ${port} of ${host} reaches the gateway's https port: DNS, the firewall, what is before the gateway`;
    const unreachable = (severity: "error" | "warning", subject: string, why: string) =>
      this.add("federation-unreachable", severity, subject, `other servers get no answer from ${subject}: ${why}`, {
        remedy,
      });
    const addresses = await network.addresses(host);
    if (addresses.length === 0) unreachable("error", at, `${host} has no address in DNS`);
    const seen: ("ours" | "foreign" | "nobody")[] = [];
    const silent: { address: string; why: string }[] = [];
    for (const address of addresses) {
      const question = { servername: certificateName, host: hostHeader, address, port };
      try {
        const answer = await network.get({ ...question, path: "/_matrix/key/v2/server" });
        this.#certificate(certificateName, answer);
        const found = this.#judgeKeys(answer, at, seen);
        if (found === "ours" && !seen.includes("ours")) await this.#federationVersion(question, at);
        seen.push(found);
      } catch (error) {
        if (error instanceof DnsFailure) throw error;
        // Nothing is known of an address to which this machine has no way.
        if (NO_WAY.has((error as NodeJS.ErrnoException).code ?? "") && addresses.length > 1) continue;
        silent.push({ address, why: messageOf(error) });
      }
    }
    for (const { address, why } of silent)
      unreachable(
        seen.length > 0 ? "warning" : "error",
        address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`,
        why,
      );
    if (seen.includes("foreign")) return "foreign";
    return seen.includes("ours") ? "ours" : "nobody";
  }

  async #federationVersion(question: Omit<Parameters<Network["get"]>[0], "path">, at: string): Promise<void> {
    const answer = await this.#options.network.get({ ...question, path: "/_matrix/federation/v1/version" });
    const { server } = asObject(answer.body);
    if (answer.status === 200 && typeof server === "object")
      return this.add("federation-ok", "ok", at, "the federation API answers");
    this.add("federation-unreachable", "error", at, `the federation API answers with ${answer.status}`, {
      remedy: "see the tenant's log; what is before the gateway has to pass on all of /_matrix/",
    });
  }

  #judgeKeys(answer: HttpsAnswer, at: string, seen: readonly string[]): "ours" | "foreign" | "nobody" {
    const { serverName, keys } = this.#subject;
    const first = seen.length === 0;
    if (answer.status !== 200) {
      if (first)
        this.add(
          "federation-unreachable",
          "error",
          at,
          `${at} has no keys of the server: it answers with ${answer.status}`,
          {
            remedy:
              this.#notOurs(answer) ??
              "see that all of /_matrix/ reaches the gateway with `Host` unchanged, and that the tenant runs",
          },
        );
      return "nobody";
    }
    const read = readServerKeys(answer.body, serverName, this.#options.now());
    if ("problem" in read) {
      if (first)
        this.add("keys-invalid", "error", at, `what is published as the server's keys is refused: ${read.problem}`, {
          remedy:
            "see that nothing before the gateway changes answers, that `Host` is passed on unchanged, and that clocks are right",
        });
      return "nobody";
    }
    const isOurs = keys === undefined || Object.entries(read.keys).some(([id, key]) => keys[id] === key);
    if (!isOurs) {
      this.add(
        "keys-foreign",
        "error",
        at,
        `another homeserver of the same name answers: its key is ${Object.keys(read.keys).join(", ")}`,
        {
          remedy: `${serverName} is served elsewhere too: stop that homeserver, or bring its keys and data here (tenant import), before users are made`,
        },
      );
      return "foreign";
    }
    if (!seen.includes("ours")) this.add("keys-ok", "ok", at, "the keys are the tenant's own, and signed by it");
    return "ours";
  }

  #notOurs({ status }: HttpsAnswer): string | undefined {
    return status === 503 ? "the gateway answers, but the tenant does not run: see `tenant describe`" : undefined;
  }

  /** Each name's certificate is spoken of once. */
  #certificate(name: string, answer: HttpsAnswer): void {
    const { now, isLocal } = this.#options;
    if (this.#certificates.has(name)) return;
    this.#certificates.add(name);
    this.findings.push(certificateFinding(name, answer, { now: now(), isLocal }));
  }
}

/** The name of a tenant that the world cannot know. */
function notPublic({ serverName, url }: CheckSubject): string | undefined {
  return [hostOf(serverName), new URL(url).hostname].find((name) => LOCAL.test(name) || !name.includes("."));
}

function asObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
