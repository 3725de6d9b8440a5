import type { Tenant } from "../../model/tenant.ts";
import { hostOf } from "../../model/names.ts";
import { databaseIn, hostsIn, parseOverrides } from "../../model/homeserver-config.ts";

export type TakenReason = "ServerNameTaken" | "HostTaken" | "DatabaseTaken";
const TAKEN: ReadonlySet<string> = new Set<TakenReason>(["ServerNameTaken", "HostTaken", "DatabaseTaken"]);

export function isTaken(reason: string): boolean {
  return TAKEN.has(reason);
}

/** Another tenant has what this one asks for. */
export interface ClaimConflict {
  reason: TakenReason;
  /** The tenant that has it. */
  holder: string;
  /** One sentence. */
  message: string;
}

export type Claimant = Pick<Tenant, "metadata" | "spec" | "status">;
type Database = { host: string; port: number; name: string };

/** Who goes first, where nobody has it yet. */
interface Rank {
  started: boolean;
  refused: boolean;
  since: string;
}

interface Entry {
  serverName: string;
  config: string;
  /** `host NAME` and `database SERVER/NAME`. */
  claims: readonly string[];
  rank: Rank;
}

/**
 * What must belong to one tenant alone: the hosts that lead to it, and its database. Whoever has one keeps it until it lets go, so that no
 * newcomer, and nobody who changes its configuration, can disturb it. Who has what is found out anew when a controller begins: those go first
 * that ran already, then those that were not refused before, then the older ones.
 *
 * Pure, and kept change by change: each costs by the tenant's own claims, not by the number of tenants.
 */
export class Claims {
  readonly #managed: (tenant: string) => Database;
  readonly #entries = new Map<string, Entry>();
  /** Claimants, the holder first; a name alone where nobody else wants it, as almost always. */
  readonly #claimants = new Map<string, string | string[]>();
  readonly #listeners = new Set<(tenant: string) => void>();
  #settled = false;

  /** @param managed the database that a tenant has from us, if it brings none; with an empty host where there are none */
  constructor(managed: (tenant: string) => Database) {
    this.#managed = managed;
  }

  /** @param listener called with each tenant whose rival is another than before, through no change of its own */
  onChange(listener: (tenant: string) => void): void {
    this.#listeners.add(listener);
  }

  /** From now on holders stay. Until then the order in which tenants were told of means nothing. */
  settle(): void {
    this.#settled = true;
    for (const [claim, claimants] of this.#claimants)
      if (typeof claimants !== "string") this.#claimants.set(claim, this.#ranked(claimants));
  }

  set(tenant: Claimant): void {
    const { name } = tenant.metadata;
    const before = this.#entries.get(name);
    const entry = this.#entryOf(tenant, before);
    this.#entries.set(name, entry);
    if (entry.claims === before?.claims) return;
    for (const claim of before?.claims ?? []) if (!entry.claims.includes(claim)) this.#release(claim, name);
    for (const claim of entry.claims) if (!before?.claims.includes(claim)) this.#claim(claim, name);
  }

  remove(name: string): void {
    const entry = this.#entries.get(name);
    this.#entries.delete(name);
    for (const claim of entry?.claims ?? []) this.#release(claim, name);
  }

  /** Who has something that the tenant, as it is given here, asks for. Its server name goes before anything else. */
  conflictOf(tenant: Claimant): ClaimConflict | undefined {
    const { name } = tenant.metadata;
    for (const claim of this.#entryOf(tenant, this.#entries.get(name)).claims) {
      const holder = this.#holderOf(claim);
      if (holder !== undefined && holder !== name) return this.#rival(tenant, claim, holder);
    }
    return undefined;
  }

  /**
   * The rival that keeps a tenant from running at all. One that serves, and asks for another's by a changed configuration, runs on with the
   * old one.
   */
  blockingConflictOf(tenant: Claimant): ClaimConflict | undefined {
    const rival = this.conflictOf(tenant);
    const runsOn = tenant.status.address !== undefined && rival?.reason !== "ServerNameTaken";
    return runsOn ? undefined : rival;
  }

  /** The hosts that lead to the tenant: those that it asks for and no other has. */
  hostsOf(tenant: Claimant): string[] {
    const { name } = tenant.metadata;
    return this.#entryOf(tenant, this.#entries.get(name))
      .claims.filter((claim) => claim.startsWith(HOST) && (this.#holderOf(claim) ?? name) === name)
      .map((claim) => claim.slice(HOST.length));
  }

  #rival({ spec }: Claimant, claim: string, holder: string): ClaimConflict {
    if (claim.startsWith(DATABASE)) {
      const database = claim.slice(DATABASE.length);
      return { reason: "DatabaseTaken", holder, message: `database ${database} belongs to tenant ${holder} already` };
    }
    const host = claim.slice(HOST.length);
    const theirs = this.#entries.get(holder)?.serverName ?? "";
    if (host === hostOf(spec.serverName) && host === hostOf(theirs)) {
      const message = `server name ${spec.serverName} belongs to tenant ${holder} already`;
      return { reason: "ServerNameTaken", holder, message };
    }
    return { reason: "HostTaken", holder, message: `host ${host} belongs to tenant ${holder} already` };
  }

  /** Reading a configuration is what costs here, so that it is done when it changed. */
  #entryOf(tenant: Claimant, known: Entry | undefined): Entry {
    const { metadata, spec, status } = tenant;
    const { serverName, config } = spec;
    const same = known?.serverName === serverName && known.config === config;
    const started = status.epoch > 0 || status.dedicated !== undefined;
    // The reason of one that runs on is forgotten while its shard is waited for; that its configuration was refused is not.
    const refused = isTaken(status.reason) || status.refusedConfig !== undefined;
    const rank = { started, refused, since: metadata.creationTimestamp };
    return { serverName, config, claims: same ? known.claims : this.#claimsOf(tenant), rank };
  }

  #claimsOf(tenant: Claimant): string[] {
    const { metadata, spec } = tenant;
    const overrides = parseOverrides(spec.config);
    const database = databaseKey(databaseIn(overrides)) ?? this.#managedKey(metadata.name);
    const hosts = hostsIn(spec.serverName, overrides).map((host) => `${HOST}${host}`);
    return database === undefined ? hosts : [...hosts, `${DATABASE}${database}`];
  }

  #managedKey(tenant: string): string | undefined {
    const database = this.#managed(tenant);
    return database.host === "" ? undefined : databaseKey(database);
  }

  #holderOf(claim: string): string | undefined {
    const claimants = this.#claimants.get(claim);
    return typeof claimants === "string" ? claimants : claimants?.[0];
  }

  #claim(claim: string, name: string): void {
    const there = this.#claimants.get(claim);
    if (there === undefined) this.#claimants.set(claim, name);
    else this.#claimants.set(claim, typeof there === "string" ? [there, name] : [...there, name]);
  }

  #release(claim: string, name: string): void {
    const there = this.#claimants.get(claim);
    if (there === undefined || typeof there === "string") {
      this.#claimants.delete(claim);
      return;
    }
    const rest = there.filter((other) => other !== name);
    const left = there[0] === name ? this.#ranked(rest) : rest;
    this.#claimants.set(claim, left.length === 1 ? left[0]! : left);
    if (there[0] !== name || !this.#settled) return;
    for (const other of left) for (const listener of this.#listeners) listener(other);
  }

  #ranked(names: readonly string[]): string[] {
    return names.toSorted((a, b) => {
      const [first, second] = [this.#entries.get(a)!.rank, this.#entries.get(b)!.rank];
      return (
        Number(second.started) - Number(first.started) ||
        Number(first.refused) - Number(second.refused) ||
        Date.parse(first.since) - Date.parse(second.since) ||
        (a < b ? -1 : 1)
      );
    });
  }
}

const HOST = "host ";
const DATABASE = "database ";

/** Undefined where no database is named: the shard says what is wrong with that. */
function databaseKey(database: Database | undefined): string | undefined {
  if (!database || database.name === "") return undefined;
  const host = ["localhost", "::1", ""].includes(database.host) ? "127.0.0.1" : database.host.toLowerCase();
  return `${host}:${database.port}/${database.name}`;
}
