import { createHash, createPrivateKey, X509Certificate as NodeCertificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { Agent } from "node:https";
import { getCACertificates } from "node:tls";
import acme from "acme-client";
import { Agent as UndiciAgent, request } from "undici";
import { z } from "zod";
import type { AcmeConfig, KeyPair } from "../model/certificates.ts";
import { messageOf } from "../model/errors.ts";
import { RateLimited, type AcmeAccount, type CertificateAuthority } from "../ports/certificates.ts";
import { ariIdOf } from "./ari.ts";

const REQUEST_MS = 30_000;
/** An authority that says 429 without a time. */
const PAUSE_SECONDS = 3_600;
/** Until an authority has made up its mind: about three minutes. */
const POLLS = { backoffAttempts: 16, backoffMin: 1_000, backoffMax: 15_000 };

export interface AcmeOptions {
  config: AcmeConfig;
  /** Publishes a TXT record, and returns when the authority finds it; removes it. Absent: there is no DNS-01. */
  dns?: { add(name: string, value: string): Promise<void>; remove(name: string, value: string): Promise<void> };
}

const Directory = z.object({ renewalInfo: z.url().optional() });
const RenewalInfo = z.object({ suggestedWindow: z.object({ start: z.string(), end: z.string() }) });
const ASK_AGAIN_SECONDS = { least: 60, usual: 6 * 3_600, most: 24 * 3_600 };

/** An authority at the other end of acme-client; ACME Renewal Information (RFC 9773) is ours. */
export class AcmeAuthority implements CertificateAuthority {
  readonly #options: AcmeOptions;
  readonly #dispatcher: UndiciAgent;
  readonly #agent: Agent;
  #renewalInfo: string | undefined | null = null;

  constructor(options: AcmeOptions) {
    this.#options = options;
    const { authorities } = options.config;
    const ca = [
      ...getCACertificates("default"),
      ...(authorities === undefined ? [] : [readFileSync(authorities, "utf8")]),
    ];
    this.#dispatcher = new UndiciAgent({ connect: { ca }, headersTimeout: REQUEST_MS, bodyTimeout: REQUEST_MS });
    this.#agent = new Agent({ ca });
  }

  async close(): Promise<void> {
    this.#agent.destroy();
    await this.#dispatcher.close();
  }

  async register(account: AcmeAccount): Promise<string> {
    const { contact, externalAccount } = this.#options.config;
    return this.#asking(async () => {
      const client = this.#client({ ...account, url: undefined }, externalAccount);
      await client.createAccount({
        termsOfServiceAgreed: true,
        contact: contact.map((address) => `mailto:${address}`),
      });
      return client.getAccountUrl();
    });
  }

  async begin(account: AcmeAccount, name: string, replaces?: string): Promise<string> {
    return this.#asking(async () => {
      const client = this.#client(account);
      const order = { identifiers: [{ type: "dns", value: name }] };
      const id = replaces === undefined || !(await this.#renewalUrl()) ? undefined : ariIdOf(replaces);
      if (id !== undefined)
        try {
          return (await client.createOrder({ ...order, replaces: id } as typeof order)).url;
        } catch (error) {
          // It was replaced before, or is no certificate of this authority's: then it is a new one.
          if (error instanceof RateLimited) throw error;
        }
      return (await client.createOrder(order)).url;
    });
  }

  async complete(
    account: AcmeAccount,
    { url, key, name }: { url: string; key: string; name: string },
  ): Promise<KeyPair> {
    return this.#asking(async () => {
      const client = this.#client(account);
      let order = await client.getOrder({ url } as never);
      if (order.status === "pending") {
        for (const authorization of await client.getAuthorizations(order)) await this.#authorize(client, authorization);
        order = await client.getOrder({ url } as never);
      }
      if (order.status === "ready") {
        const [, csr] = await acme.crypto.createCsr({ altNames: [name] }, key);
        order = await client.finalizeOrder({ ...order, url }, csr);
      }
      if (order.status === "invalid") throw new Error(`the authority refused the order for ${name}`);
      const certificate = await client.getCertificate({ ...order, url });
      if (!new NodeCertificate(certificate).checkPrivateKey(createPrivateKey(key)))
        throw new Error(`the authority's certificate for ${name} is for another key`);
      return { certificate, key };
    });
  }

  async #authorize(client: acme.Client, authorization: acme.Authorization): Promise<void> {
    if (authorization.status === "valid") return;
    const { dns } = this.#options;
    const wildcard = authorization.wildcard === true;
    const type = wildcard ? "dns-01" : "http-01";
    const challenge = authorization.challenges.find((one) => one.type === type);
    if (!challenge) throw new Error(`the authority offers no ${type} for ${authorization.identifier.value}`);
    if (type === "http-01") {
      // Gateways answer, by the account alone.
      if (challenge.status === "pending") await client.completeChallenge(challenge);
      await client.waitForValidStatus(challenge);
      return;
    }
    if (!dns)
      throw new Error(`${authorization.identifier.value} has a wildcard, which takes certificates.acme.dnsHook`);
    const record = `_acme-challenge.${authorization.identifier.value}`;
    const value = await client.getChallengeKeyAuthorization(challenge);
    await dns.add(record, value);
    try {
      if (challenge.status === "pending") await client.completeChallenge(challenge);
      await client.waitForValidStatus(challenge);
    } finally {
      await dns.remove(record, value);
    }
  }

  async renewalInfo(
    certificate: string,
  ): Promise<{ start: string; end: string; retryAfterSeconds: number } | undefined> {
    const base = await this.#renewalUrl();
    const id = ariIdOf(certificate);
    if (base === undefined || id === undefined) return undefined;
    const { statusCode, headers, body } = await this.#get(`${base.replace(/\/$/, "")}/${id}`);
    if (statusCode !== 200) return undefined;
    const parsed = RenewalInfo.safeParse(JSON.parse(body));
    if (!parsed.success) return undefined;
    const { least, usual, most } = ASK_AGAIN_SECONDS;
    const said = secondsIn(headers["retry-after"]);
    return { ...parsed.data.suggestedWindow, retryAfterSeconds: Math.min(Math.max(said ?? usual, least), most) };
  }

  async newKey(): Promise<string> {
    return (await acme.crypto.createPrivateEcdsaKey()).toString();
  }

  thumbprintOf(accountKey: string): string {
    const jwk = acme.crypto.getJwk(accountKey);
    // Members in the order of RFC 7638.
    const members = Object.fromEntries(Object.entries(jwk).toSorted(([a], [b]) => (a < b ? -1 : 1)));
    return createHash("sha256").update(JSON.stringify(members)).digest("base64url");
  }

  #client(account: AcmeAccount, external?: AcmeConfig["externalAccount"]): acme.Client {
    // One cluster has one authority: what acme-client has for all its clients is this one's.
    acme.axios.defaults.httpsAgent = this.#agent;
    acme.axios.defaults.timeout = REQUEST_MS;
    // It would wait for hours, as an authority may ask for.
    Object.assign(acme.axios.defaults, { acmeSettings: { ...NO_RETRIES } });
    return new acme.Client({
      directoryUrl: this.#options.config.directory,
      accountKey: account.key,
      ...(account.url === undefined ? {} : { accountUrl: account.url }),
      ...(external
        ? {
            externalAccountBinding: { kid: external.keyId, hmacKey: readFileSync(external.hmacKeyFile, "utf8").trim() },
          }
        : {}),
      ...POLLS,
    });
  }

  /** Where to ask when certificates are to be renewed. */
  async #renewalUrl(): Promise<string | undefined> {
    if (this.#renewalInfo !== null) return this.#renewalInfo;
    const { statusCode, body } = await this.#get(this.#options.config.directory);
    if (statusCode !== 200) return undefined;
    this.#renewalInfo = Directory.parse(JSON.parse(body)).renewalInfo;
    return this.#renewalInfo;
  }

  async #get(url: string): Promise<{ statusCode: number; headers: Record<string, unknown>; body: string }> {
    // RFC 8555, 6.1, asks for the name of the client.
    const headers = { "user-agent": "synapse-shards" };
    const signal = AbortSignal.timeout(REQUEST_MS);
    const answer = await request(url, { dispatcher: this.#dispatcher, headers, signal });
    return { statusCode: answer.statusCode, headers: answer.headers, body: await answer.body.text() };
  }

  async #asking<T>(work: () => Promise<T>): Promise<T> {
    const id = acme.axios.interceptors.response.use((response) => {
      if (response.status !== 429 && response.status !== 503) return response;
      const seconds = secondsIn(response.headers["retry-after"]) ?? PAUSE_SECONDS;
      const { detail } = (response.data ?? {}) as { detail?: unknown };
      throw new RateLimited(String(detail ?? `the authority answers ${response.status}`), seconds);
    });
    try {
      return await work();
    } catch (error) {
      if (error instanceof RateLimited) throw error;
      throw new Error(messageOf(error), { cause: error });
    } finally {
      acme.axios.interceptors.response.eject(id);
    }
  }
}

const NO_RETRIES = {
  httpChallengePort: 80,
  httpsChallengePort: 443,
  tlsAlpnChallengePort: 443,
  retryMaxAttempts: 0,
  retryDefaultDelay: 5,
};

/** `Retry-After`: seconds or a date. */
function secondsIn(value: unknown): number | undefined {
  if (typeof value !== "string") return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value);
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, Math.ceil((at - Date.now()) / 1000));
}
