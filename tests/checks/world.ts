import { generateKeyPairSync, sign } from "node:crypto";
import { createServer, type Server } from "node:https";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { createSecureContext } from "node:tls";
import { Network } from "../../src/checks/network.ts";
import { canonicalJson } from "../../src/checks/server-keys.ts";
import { WorldChecker } from "../../src/checks/world-checker.ts";
import type { PublicAccess } from "../../src/model/public-access.ts";
import type { Finding } from "../../src/model/tenant-check.ts";
import type { CheckSubject } from "../../src/ports/tenant-checker.ts";
import { Authority } from "../support/authority.ts";
import { DnsServer } from "../support/dns-server.ts";

/** The gateway's address in DNS, and another one's: both are of nobody. */
export const GATEWAY = "203.0.113.5";
export const ELSEWHERE = "203.0.113.99";

export const SUBJECT: CheckSubject = { serverName: "clinic-z.example", url: "https://matrix.clinic-z.example/" };
const OURS = generateKeyPairSync("ed25519");
export const KEYS = { "ed25519:a_1": rawOf(OURS.publicKey.export({ format: "jwk" }).x) };

type Answer = [status: number, body: unknown, headers?: Record<string, string>];
type Site = (path: string, request: IncomingMessage) => Answer | undefined;

/** DNS, the gateway and a web site beside it: real servers on loopback, which a check reaches in place of public addresses. */
export class World {
  readonly dns: DnsServer;
  readonly #authority: Authority;
  readonly #servers: Server[] = [];
  readonly #contexts = new Map<string, ReturnType<typeof createSecureContext>>();
  /** What https requests were for, `HOST PATH`. */
  readonly seen: string[] = [];
  /** By host; a connection for another one has no certificate. */
  readonly sites = new Map<string, Site>();
  access: PublicAccess = { addresses: [GATEWAY], httpsPort: 443, dnsServers: [], connectTo: [] };
  allowPrivate = false;
  now = Date.now();

  private constructor(dns: DnsServer, authority: Authority) {
    this.dns = dns;
    this.#authority = authority;
  }

  static async start(): Promise<World> {
    const world = new World(await DnsServer.start(), await Authority.make());
    const port = await world.#listen();
    const to = `127.0.0.1:${port}`;
    world.access.dnsServers = [world.dns.address];
    world.access.connectTo = [443, 8448].map((from) => ({ port: from, to }));
    return world;
  }

  /** A domain as it has to be: the web site has its name, the homeserver a host in it. */
  async settle(): Promise<void> {
    this.dns.zone.set("matrix.clinic-z.example", { A: [GATEWAY] });
    this.dns.zone.set("clinic-z.example", { A: [GATEWAY] });
    await this.site("matrix.clinic-z.example", homeserver());
    await this.site("clinic-z.example", delegating("matrix.clinic-z.example:443"));
  }

  /** @param name what its certificate is for @param authority whose certificate it has, if not one that is trusted */
  async site(name: string, answer: Site, { names = [name], authority = this.#authority } = {}): Promise<void> {
    const { certificate, key } = await authority.issue(names);
    this.#contexts.set(name, createSecureContext({ cert: certificate, key }));
    this.sites.set(name, answer);
  }

  async check(subject: CheckSubject = { ...SUBJECT, keys: KEYS }, own: readonly string[] = []): Promise<Finding[]> {
    const network = new Network({
      access: () => this.access,
      allowPrivate: this.allowPrivate,
      authorities: () => [this.#authority.pem],
      ownAuthorities: () => own,
      timeoutMs: 5_000,
    });
    return new WorldChecker({ network, now: () => this.now, isLocal: false }).check(subject);
  }

  async stop(): Promise<void> {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
    await this.dns.stop();
  }

  async #listen(): Promise<number> {
    const server = createServer(
      { SNICallback: (name, done) => done(null, this.#contexts.get(name)) },
      (request, response) => {
        const host = (request.headers.host ?? "").replace(/:\d+$/, "");
        this.seen.push(`${host} ${request.url}`);
        const [status, body, headers] = this.sites.get(host)?.(request.url ?? "/", request) ?? [
          404,
          { errcode: "M_NOT_FOUND" },
        ];
        response.writeHead(status, { "content-type": "application/json", ...headers });
        response.end(typeof body === "string" ? body : JSON.stringify(body));
      },
    );
    this.#servers.push(server);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return (server.address() as AddressInfo).port;
  }
}

/** What a homeserver says of itself, signed. */
export function serverKeys(
  serverName: string,
  { privateKey, publicKey } = OURS,
  until = Date.now() + 86_400_000,
): object {
  const document = {
    server_name: serverName,
    valid_until_ts: until,
    verify_keys: { "ed25519:a_1": { key: rawOf(publicKey.export({ format: "jwk" }).x) } },
    old_verify_keys: {},
  };
  const signature = sign(null, Buffer.from(canonicalJson(document)), privateKey)
    .toString("base64")
    .replace(/=+$/, "");
  return { ...document, signatures: { [serverName]: { "ed25519:a_1": signature } } };
}

export function homeserver(keys: object = serverKeys(SUBJECT.serverName)): Site {
  return (path) => {
    if (path === "/_matrix/key/v2/server") return [200, keys];
    if (path === "/_matrix/federation/v1/version") return [200, { server: { name: "Synapse", version: "1" } }];
    if (path === "/_matrix/client/versions") return [200, { versions: ["v1.11"] }];
    return undefined;
  };
}

/** A web site that leads to a homeserver. */
export function delegating(delegate: string, client = "https://matrix.clinic-z.example"): Site {
  return (path) => {
    if (path === "/.well-known/matrix/server") return [200, { "m.server": delegate }];
    if (path === "/.well-known/matrix/client") return [200, { "m.homeserver": { base_url: client } }];
    return undefined;
  };
}

function rawOf(x: string | undefined): string {
  return Buffer.from(x ?? "", "base64url")
    .toString("base64")
    .replace(/=+$/, "");
}
