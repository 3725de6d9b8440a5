import { timeText } from "../../model/clock.ts";
import { readConfig } from "../../model/config-reading.ts";
import { UserError } from "../../model/errors.ts";
import { serverNameProblem } from "../../model/names.ts";
import { publicKeysOf } from "../../model/signing-keys.ts";
import { readSynapseYaml } from "../../model/synapse-yaml.ts";
import { PublicAccessSchema, type PublicAccess } from "../../model/public-access.ts";
import type { Tenant } from "../../model/tenant.ts";
import { worstOf, type CheckReport, type Finding } from "../../model/tenant-check.ts";
import { dnsOf, type TenantDns } from "../../model/tenant-dns.ts";
import type { TenantChecker } from "../../ports/tenant-checker.ts";
import type { ControllerContext } from "../context.ts";
import { asItRuns } from "../start/configs.ts";
import type { CreateTenantRequest } from "./cluster-service.ts";

export interface OnboardingSettings {
  urlOf(tenant: Tenant): string;
  /** Default: nothing is known of it. */
  publicAccess?(): PublicAccess;
  /** Absent where nothing can be looked at from outside. */
  checker?: TenantChecker;
}

/** How a tenant becomes reachable for the world, and whether it is. */
export class Onboarding {
  readonly #context: ControllerContext;
  readonly #settings: OnboardingSettings;
  /** Under way: who asks meanwhile gets the same answer, so that nobody makes the controller ask around many times at once. */
  readonly #running = new Map<string, Promise<CheckReport>>();

  constructor(context: ControllerContext, settings: OnboardingSettings) {
    this.#context = context;
    this.#settings = settings;
  }

  /** A request with its domain spelled out. @throws UserError InvalidInput */
  spelledOut(request: CreateTenantRequest): CreateTenantRequest {
    return withDomain(request, this.#publicAccess());
  }

  dns(tenant: Tenant): TenantDns {
    return dnsOf(tenant.spec.serverName, this.#settings.urlOf(tenant), this.#publicAccess());
  }

  #publicAccess(): PublicAccess {
    return this.#settings.publicAccess?.() ?? PublicAccessSchema.parse({});
  }

  check(tenant: Tenant): Promise<CheckReport> {
    const { name } = tenant.metadata;
    const running = this.#running.get(name);
    if (running) return running;
    const check = this.#check(tenant).finally(() => this.#running.delete(name));
    this.#running.set(name, check);
    return check;
  }

  async #check(tenant: Tenant): Promise<CheckReport> {
    const { serverName } = tenant.spec;
    const url = this.#settings.urlOf(tenant);
    const { checker } = this.#settings;
    if (!checker) throw new UserError("Conflict", "this platform has no way to look at tenants from outside");
    const secrets = await asItRuns(this.#context, tenant).then(
      (found) => found?.secrets,
      () => undefined,
    );
    // Of a tenant that brings a key of its own along, only its own word tells.
    const keys = secrets && !/^signing_key\b/m.test(tenant.spec.config) ? publicKeysOf(secrets.signingKey) : undefined;
    const findings = await checker.check({ serverName, url, ...(keys ? { keys } : {}) });
    const all = [runningFinding(tenant), ...findings];
    const checkedAt = timeText(this.#context.clock.now());
    return { tenant: tenant.metadata.name, serverName, url, checkedAt, result: worstOf(all), findings: all };
  }
}

function runningFinding({ metadata: { name }, status }: Tenant): Finding {
  const { phase, message } = status;
  const subject = name;
  if (phase === "Running" || phase === "Moving")
    return { code: "tenant-running", severity: "ok", subject, message: "the tenant runs" };
  if (phase === "Asleep" || phase === "FallingAsleep")
    return {
      code: "tenant-running",
      severity: "ok",
      subject,
      message: "the tenant sleeps, and wakes when it is asked",
    };
  return {
    code: "tenant-not-running",
    severity: "error",
    subject,
    message: `the tenant is ${phase}${message ? `: ${message}` : ""}`,
    remedy: `see \`tenant describe ${name}\``,
  };
}

/**
 * A tenant's request with its domain spelled out: its server name, and its URL for clients in its configuration.
 * @throws UserError InvalidInput
 */
export function withDomain(request: CreateTenantRequest, { httpsPort }: PublicAccess): CreateTenantRequest {
  const { domain, host = `matrix.${domain}`, serverName, config = "", ...rest } = request;
  if (domain === undefined) {
    if (request.host === undefined) return request;
    throw new UserError("InvalidInput", "host: it is the homeserver's host in a domain; give the domain as well");
  }
  if (serverName !== undefined)
    throw new UserError("InvalidInput", "give domain or serverName, not both: the domain is the server name");
  const problem = domainProblem("domain", domain) ?? domainProblem("host", host);
  if (problem !== undefined) throw new UserError("InvalidInput", problem);
  const url = `https://${host}${httpsPort === 443 ? "" : `:${httpsPort}`}/`;
  return { ...rest, serverName: domain, config: withUrl(config, url, request.host !== undefined) };
}

function domainProblem(what: string, name: string): string | undefined {
  const problem = serverNameProblem(name);
  if (problem !== undefined) return `${what}: ${problem}`;
  if (/:|^[\d.]+$/.test(name))
    return `${what} ${JSON.stringify(name)} is not a domain name: it has no port, and is no address`;
  return undefined;
}

/** What the configuration says itself is left alone, unless it contradicts what was asked for. */
function withUrl(config: string, url: string, isAsked: boolean): string {
  const own = readConfig(config).publicBaseUrl;
  if (own !== undefined) {
    if (!isAsked || new URL(own).hostname === new URL(url).hostname) return config;
    throw new UserError("InvalidInput", `host: the configuration has public_baseurl ${own}; give one of the two`);
  }
  const composed = `public_baseurl: ${JSON.stringify(url)}\n${config}`;
  try {
    if (Object.keys(readSynapseYaml(composed)).length === Object.keys(readSynapseYaml(config)).length + 1)
      return composed;
  } catch {
    // Said below.
  }
  throw new UserError(
    "InvalidInput",
    `the configuration cannot be extended as it is written: add public_baseurl: ${url} to it`,
  );
}
