import { createHash, X509Certificate } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { getDomain } from "tldts";
import type {
  AcmeConfig,
  CertificateProblem,
  CertificateRecord,
  CertificateView,
  KeyPair,
  SharedCertificates,
} from "../../model/certificates.ts";
import { timeText } from "../../model/clock.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import {
  RateLimited,
  type AcmeAccount,
  type CertificateAuthority,
  type CertificateStore,
  type Reachability,
} from "../../ports/certificates.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { Turns } from "../turns.ts";
import type { CertificateService } from "../service/certificate-service.ts";
import { SharedBook } from "./shared.ts";
import { DOMAIN_WINDOW_MS, endsSoon, mayOrderAt, renewAt, wantedNames } from "./wanted.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** Looking costs nothing but a request to ourselves. */
const LOOK_AGAIN = { first: MINUTE_MS, most: HOUR_MS };
/** Authorities bear five failures an hour of one name: this makes four. */
const ORDER_AGAIN = { first: 5 * MINUTE_MS, most: 24 * HOUR_MS };
/** Gateways hear of a new account within a moment. */
const LOOKS = { tries: 3, pauseMs: 1_000 };
const AT_ONCE = 4;
const ASK_AGAIN_MS = 6 * HOUR_MS;

export interface KeeperOptions {
  config: AcmeConfig;
  baseDomain: string;
  store: CertificateStore;
  authority: CertificateAuthority;
  reachability: Reachability;
  /** The operator has put files for that name into the gateway's directory: nothing is ordered for it. */
  hasOwnFiles(name: string): boolean;
}

/** Orders and renews certificates for tenants' names, and for nobody else's; gateways are told by `shared`. */
export class CertificateKeeper implements CertificateService {
  readonly #context: ControllerContext;
  readonly #options: KeeperOptions;
  readonly #book = new SharedBook();
  readonly #records = new Map<string, CertificateRecord>();
  /** Limits are looked at, and an order is sent, by one at a time. */
  readonly #ordering = new Turns();
  readonly #told = new Set<string>();
  readonly #stopped = new AbortController();
  #wanted = new Map<string, string | null>();
  #account: AcmeAccount | undefined;
  #running: Promise<void> | undefined;
  #wake: () => void = () => {};

  constructor(context: ControllerContext, options: KeeperOptions) {
    this.#context = context;
    this.#options = options;
  }

  async start(): Promise<void> {
    for (const record of await this.#options.store.list()) this.#records.set(record.name, record);
    this.#share();
    this.#running = this.#run();
  }

  async close(): Promise<void> {
    this.#stopped.abort();
    this.#book.close();
    this.#wake();
    await this.#running;
  }

  list(): CertificateView[] {
    const names = new Set([...this.#wanted.keys(), ...this.#records.keys()]);
    return [...names].toSorted().map((name) => this.#view(name));
  }

  async renew(name: string): Promise<CertificateView> {
    if (!this.#wanted.has(name))
      throw new UserError("NotFound", `no tenant has the name ${name}, or its certificate is of another's making`);
    await this.#write(name, (record) => {
      record.renewAsked = true;
      delete record.retryAt;
    });
    this.#wake();
    return this.#view(name);
  }

  shared(known: { stream?: string; version?: number }, waitMs: number): Promise<SharedCertificates> {
    return this.#book.since(known, this.#stopped.signal.aborted ? 0 : waitMs);
  }

  /** What is wrong now, one sentence each. */
  problems(): string[] {
    const now = this.#context.clock.wall();
    return [...this.#wanted.keys()].flatMap((name) => {
      const record = this.#records.get(name);
      if (!record?.issued || !endsSoon(record.issued, now)) return [];
      const why = record.problem ? `: ${record.problem.message}` : "";
      return [`the certificate for ${name} ends on ${record.issued.notAfter.slice(0, 10)} and is not renewed${why}`];
    });
  }

  async #run(): Promise<void> {
    const { log } = this.#context;
    while (!this.#stopped.signal.aborted) {
      const { config } = this.#options;
      try {
        await this.#pass(config);
      } catch (error) {
        log.error({ problem: messageOf(error) }, "certificates could not be looked at");
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, config.checkEverySeconds * 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
        if (this.#stopped.signal.aborted) this.#wake();
      });
    }
  }

  async #pass(config: AcmeConfig): Promise<void> {
    const { reader, claims } = this.#context;
    const { baseDomain, hasOwnFiles } = this.#options;
    const hosts = [...reader.values("Tenant")]
      .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
      .map((tenant) => ({ tenant: tenant.metadata.name, hosts: claims.hostsOf(tenant) }));
    this.#wanted = wantedNames(hosts, config.dnsHook === undefined ? undefined : baseDomain);
    for (const name of this.#wanted.keys()) if (hasOwnFiles(name)) this.#wanted.delete(name);
    await this.#forget();
    this.#share();
    const names = [...this.#wanted.keys()];
    const work = async (): Promise<void> => {
      for (let name = names.shift(); name !== undefined; name = names.shift()) {
        if (this.#stopped.signal.aborted) return;
        try {
          await this.#look(name, config);
        } catch (error) {
          // Of one name alone: the others go on.
          this.#context.log.error({ name, problem: messageOf(error) }, "a certificate could not be looked after");
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    await this.#tellEnds();
    this.#measure();
  }

  #measure(): void {
    const { certificates, certificateSoonestEnd, certificatesEndingSoon } = this.#context.metrics;
    const views = [...this.#wanted.keys()].map((name) => this.#view(name));
    certificates.reset();
    for (const { state } of views) certificates.inc({ state });
    const ends = views.flatMap(({ notAfter }) => (notAfter === null ? [] : [Date.parse(notAfter) / 1000]));
    certificateSoonestEnd.set(ends.length === 0 ? 0 : Math.min(...ends));
    certificatesEndingSoon.set(this.problems().length);
  }

  /** What nobody wants any more is kept while it lasts: its tenant may come back. */
  async #forget(): Promise<void> {
    const now = this.#context.clock.wall();
    for (const [name, { issued }] of this.#records) {
      if (this.#wanted.has(name) || (issued && Date.parse(issued.notAfter) > now)) continue;
      await this.#options.store.remove(name);
      this.#records.delete(name);
    }
  }

  async #look(name: string, config: AcmeConfig): Promise<void> {
    const now = this.#context.clock.wall();
    const record = this.#records.get(name) ?? { name, failures: 0 };
    if (record.issued && !record.renewAsked && !record.order) {
      await this.#askWhen(record);
      const known = this.#records.get(name)?.issued ?? record.issued;
      if (renewAt(known, partOf(name)) > now) return;
    }
    if (record.retryAt !== undefined && Date.parse(record.retryAt) > now) return;
    await this.#order(record, config);
  }

  /** The authority may want it to be renewed earlier, as before a revocation. */
  async #askWhen({ name, issued }: CertificateRecord): Promise<void> {
    const now = this.#context.clock.wall();
    if (!issued || (issued.askAgainAt !== undefined && Date.parse(issued.askAgainAt) > now)) return;
    const said = await this.#options.authority.renewalInfo(issued.certificate).catch(() => undefined);
    await this.#write(name, (record) => {
      if (record.issued?.certificate !== issued.certificate) return;
      record.issued.askAgainAt = timeText(now + (said ? said.retryAfterSeconds * 1000 : ASK_AGAIN_MS));
      if (said) record.issued.suggested = { start: said.start, end: said.end };
    });
  }

  async #order({ name, issued }: CertificateRecord, config: AcmeConfig): Promise<void> {
    const { clock } = this.#context;
    const { authority } = this.#options;
    try {
      const account = await this.#accountAt(config.directory);
      const paused = account.pausedUntil === undefined ? 0 : Date.parse(account.pausedUntil);
      if (paused > clock.wall())
        return await this.#put(
          name,
          "RateLimited",
          "the authority wants no more orders for a while",
          paused - clock.wall(),
        );
      if (!name.startsWith("*.")) {
        const why = await this.#unreachable(name, authority.thumbprintOf(account.key));
        if (why !== undefined) return await this.#failed(name, "NotReachable", why, LOOK_AGAIN);
      }
      const order = await this.#ordering.run(() => this.#begin(name, account, config));
      if (!order) return;
      const pair = await authority.complete(account, { ...order, name });
      await this.#issued(name, pair, issued !== undefined);
    } catch (error) {
      if (error instanceof RateLimited) return this.#pause(name, config.directory, error);
      // An order whose end is not known goes on; one that failed is followed by another.
      if (!isAway(error)) await this.#write(name, (record) => void delete record.order);
      await this.#failed(name, "OrderFailed", messageOf(error), ORDER_AGAIN);
    }
  }

  async #unreachable(name: string, thumbprint: string): Promise<string | undefined> {
    let why: string | undefined;
    for (let tries = 0; tries < LOOKS.tries; tries += 1) {
      if (tries > 0) await sleep(LOOKS.pauseMs, undefined, { signal: this.#stopped.signal });
      why = await this.#options.reachability(name, thumbprint);
      if (why === undefined) break;
    }
    return why;
  }

  /** Sends an order, if the limits let it, or goes on with the one that was begun. It is written down before anything is done for it. */
  async #begin(
    name: string,
    account: AcmeAccount,
    config: AcmeConfig,
  ): Promise<{ url: string; key: string } | undefined> {
    const { clock } = this.#context;
    const { store, authority } = this.#options;
    const record = this.#records.get(name) ?? { name, failures: 0 };
    if (record.order) return record.order;
    const now = clock.wall();
    const domain = getDomain(name.replace(/^\*\./, ""), { allowPrivateDomains: true }) ?? name;
    const replaces = record.issued?.suggested ? record.issued.certificate : undefined;
    const isRenewal = replaces !== undefined;
    const sent = await store.orders(config.directory, timeText(now - DOMAIN_WINDOW_MS));
    const at = mayOrderAt(sent, { domain, isRenewal }, config, now);
    if (at > now) {
      await this.#put(
        name,
        "LimitReached",
        `${sent.length} certificates were ordered within a week; certificates.acme has the limits`,
        at - now,
      );
      return undefined;
    }
    // Before it is sent: one that nobody remembers would be sent again and again.
    await store.addOrder(
      config.directory,
      { at: timeText(now), name, domain, isRenewal },
      timeText(now - DOMAIN_WINDOW_MS),
    );
    const url = await authority.begin(account, name, replaces);
    const order = { url, key: await authority.newKey(), begunAt: timeText(now) };
    await this.#write(name, (changed) => void (changed.order = order));
    return order;
  }

  async #issued(name: string, { certificate, key }: KeyPair, isRenewal: boolean): Promise<void> {
    const { validFrom, validTo } = new X509Certificate(certificate);
    const [notBefore, notAfter] = [validFrom, validTo].map((text) => new Date(text).toISOString()) as [string, string];
    await this.#write(name, (record) => {
      record.issued = { certificate, key, notBefore, notAfter };
      record.failures = 0;
      for (const done of ["order", "problem", "retryAt", "renewAsked"] as const) delete record[done];
    });
    this.#context.metrics.certificateOrders.inc({ outcome: "issued" });
    this.#share();
    await this.#event(
      name,
      "Normal",
      "CertificateIssued",
      `the certificate for ${name} was ${isRenewal ? "renewed" : "issued"}, and lasts until ${notAfter.slice(0, 10)}`,
    );
  }

  async #pause(name: string, directory: string, { message, retryAfterSeconds }: RateLimited): Promise<void> {
    const until = this.#context.clock.wall() + retryAfterSeconds * 1000;
    if (this.#account) {
      this.#account.pausedUntil = timeText(until);
      await this.#options.store.putAccount(directory, this.#account);
    }
    this.#context.metrics.certificateOrders.inc({ outcome: "limited" });
    await this.#put(name, "RateLimited", message, retryAfterSeconds * 1000);
  }

  async #failed(
    name: string,
    code: CertificateProblem,
    message: string,
    again: { first: number; most: number },
  ): Promise<void> {
    const { failures = 0, problem } = this.#records.get(name) ?? {};
    const count = problem?.code === code ? failures + 1 : 1;
    // Looking again and again is no failure, and not of interest to anybody.
    if (code !== "NotReachable") this.#context.metrics.certificateOrders.inc({ outcome: "failed" });
    await this.#put(name, code, message, Math.min(again.first * 2 ** (count - 1), again.most), count);
    if (count === 1)
      await this.#event(name, "Warning", "CertificateFailed", `there is no new certificate for ${name}: ${message}`);
  }

  #put(name: string, code: CertificateProblem, message: string, waitMs: number, failures?: number): Promise<void> {
    const retryAt = timeText(this.#context.clock.wall() + waitMs);
    return this.#write(name, (record) => {
      record.problem = { code, message };
      record.retryAt = retryAt;
      if (failures !== undefined) record.failures = failures;
    });
  }

  async #write(name: string, change: (record: CertificateRecord) => void): Promise<void> {
    const record = structuredClone(this.#records.get(name) ?? { name, failures: 0 });
    change(record);
    await this.#options.store.put(record);
    this.#records.set(name, record);
  }

  async #accountAt(directory: string): Promise<AcmeAccount> {
    return this.#ordering.run(async () => {
      if (this.#account?.url !== undefined) return this.#account;
      const { store, authority } = this.#options;
      const known = (await store.account(directory)) ?? { key: await authority.newKey() };
      // Written before it is registered: the authority finds the account of a key again.
      await store.putAccount(directory, known);
      if (known.url === undefined) {
        known.url = await authority.register(known);
        await store.putAccount(directory, known);
      }
      this.#account = known;
      this.#book.thumbprint = authority.thumbprintOf(known.key);
      return known;
    });
  }

  #share(): void {
    const pairs = new Map<string, KeyPair>();
    const now = this.#context.clock.wall();
    for (const [name, { issued }] of this.#records)
      if (issued && Date.parse(issued.notAfter) > now && (this.#wanted.size === 0 || this.#wanted.has(name)))
        pairs.set(name, issued);
    this.#book.replace(pairs);
  }

  async #tellEnds(): Promise<void> {
    const now = this.#context.clock.wall();
    for (const name of this.#wanted.keys()) {
      const { issued, problem } = this.#records.get(name) ?? {};
      if (!issued || !endsSoon(issued, now) || this.#told.has(`${name} ${issued.notAfter}`)) continue;
      this.#told.add(`${name} ${issued.notAfter}`);
      const why = problem ? `: ${problem.message}` : "";
      await this.#event(
        name,
        "Warning",
        "CertificateEndsSoon",
        `the certificate for ${name} ends on ${issued.notAfter.slice(0, 10)}${why}`,
      );
    }
  }

  #event(name: string, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    const tenant = this.#wanted.get(name);
    return recordEvent(this.#context, {
      type,
      reason,
      object: tenant ? `Tenant/${tenant}` : `Certificate/${name}`,
      message,
    });
  }

  #view(name: string): CertificateView {
    const { issued, order, problem, retryAt } = this.#records.get(name) ?? {};
    const lasts = issued !== undefined && Date.parse(issued.notAfter) > this.#context.clock.wall();
    const without = order ? "Ordering" : problem?.code === "OrderFailed" ? "Failed" : issued ? "Ended" : "Waiting";
    return {
      name,
      tenant: this.#wanted.get(name) ?? null,
      state: lasts ? "Valid" : without,
      notAfter: issued?.notAfter ?? null,
      renewAt: issued ? timeText(renewAt(issued, partOf(name))) : null,
      problem: problem?.code ?? null,
      message: problem?.message ?? null,
      retryAt: retryAt ?? null,
    };
  }
}

/** The authority did not answer, or has not made up its mind. */
function isAway(error: unknown): boolean {
  const { message, cause } = error as Error;
  const { code } = (cause ?? error) as NodeJS.ErrnoException;
  return (
    (typeof code === "string" && /^(E[A-Z]+|ERR_NETWORK)$/.test(code)) || /pending or processing|aborted/.test(message)
  );
}

/** Of one name the same each time, of all evenly spread. */
function partOf(name: string): number {
  return createHash("sha256").update(name).digest().readUInt32BE() / 2 ** 32;
}
