import type { Clock } from "../../model/clock.ts";
import { StartFailure } from "../../model/errors.ts";
import { hasStarted, type Tenant } from "../../model/tenant.ts";
import type { Placed } from "../../ports/databases.ts";
import { hostsOf, tryReadConfig } from "../../model/config-reading.ts";
import type { ConfigMeaning, DatabaseAddress } from "../../model/config-meaning.ts";
import { isOwnHost } from "../../model/further-hosts.ts";
import { hostOf } from "../../model/names.ts";
import { belongsTo } from "../../model/holder.ts";

export type TakenReason = "ServerNameTaken" | "HostTaken" | "DatabaseTaken";
/** As well as what another tenant has, what is kept for one that was deleted. */
export const NAME_RESERVED = "NameReserved";
const TAKEN: ReadonlySet<string> = new Set<TakenReason | typeof NAME_RESERVED>([
  "ServerNameTaken",
  "HostTaken",
  "DatabaseTaken",
  NAME_RESERVED,
]);

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
type Database = Omit<DatabaseAddress, "user">;

/** Who goes first, where nobody has it yet. */
interface Rank {
  started: boolean;
  refused: boolean;
  since: string;
}

/** What a tenant is to run with, once a shard has read it. */
export interface Admission {
  /** As `status.configHash`. */
  hash: string;
  meaning: ConfigMeaning;
  /** Of a database that the tenant brings along: ours is its own by the way it was made. */
  databaseId?: string;
}

type Reservation = Admission & { config: string; since: number };
/** Longer than a move takes from its preparation to the start. */
const RESERVED_MS = 60_000;

interface Entry {
  serverName: string;
  config: string;
  inEffect: string | undefined;
  databaseId: string | undefined;
  databaseServer: string | undefined;
  reservation: Reservation | undefined;
  /** Whether its configuration is the one in effect, as far as is known: then no text needs to be read, which a leader of 100,000 notices. */
  runsAsAsked: boolean;
  /** What it asks for: `host NAME`, `database SERVER/NAME`, `database-id SYSTEM/OID`. */
  wanted: readonly string[];
  /** Hosts that it asks for, and may not have. */
  notAllowed: readonly string[];
  /** What it may have, in one text: it changes with the namespace of its Secrets. */
  allowed: string;
  /** What it runs with; it may ask for something else by now. */
  held: readonly string[];
  /** Both. */
  claims: readonly string[];
  rank: Rank;
}

/**
 * What must belong to one tenant alone: the hosts that lead to it, and its database, by every name and by the server's own identification.
 * The holder keeps it until it lets go, so that no newcomer, and no changed configuration, can disturb it. When a controller begins, what runs
 * decides: those go first that run with it, then those that ever ran, then those that were not refused before, then the older ones.
 *
 * What a tenant runs with is what its shard reported; what it asks for is read from its configuration until a shard has reported on it. Of hosts that
 * only counts which it may have: it can keep nobody out of others by asking for them, and a dedicated process, which no shard checks, gets none.
 *
 * Pure, and kept change by change: each costs by the tenant's own claims, not by the number of tenants.
 */
export class Claims {
  readonly #managed: (tenant: Placed) => Database;
  readonly #clock: Clock;
  readonly #allowedHosts: (tenant: string) => readonly string[];
  readonly #entries = new Map<string, Entry>();
  /** Claimants, the holder first; a name alone where nobody else wants it, as almost always. */
  readonly #claimants = new Map<string, string | string[]>();
  readonly #reserved = new Map<string, Reservation>();
  readonly #listeners = new Set<(tenant: string) => void>();
  #settled = false;

  /**
   * @param managed the database that a tenant has from us, if it brings none; with an empty host where there are none
   * @param allowedHosts what a tenant may have beside its own name and those below, as its shard is told
   */
  constructor(
    managed: (tenant: Placed) => Database,
    clock: Clock,
    allowedHosts: (tenant: string) => readonly string[],
  ) {
    this.#managed = managed;
    this.#clock = clock;
    this.#allowedHosts = allowedHosts;
  }

  /** @param listener called with each tenant whose rival is another than before, through no change of its own */
  onChange(listener: (tenant: string) => void): void {
    this.#listeners.add(listener);
  }

  /** From now on holders stay. Until then the order in which tenants were told of means nothing. */
  settle(): void {
    this.#settled = true;
    for (const [claim, claimants] of this.#claimants)
      if (typeof claimants !== "string") this.#claimants.set(claim, this.#ranked(claim, claimants));
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
    this.#reserved.delete(name);
    for (const claim of entry?.claims ?? []) this.#release(claim, name);
  }

  /** Who has something that the tenant, as it is given here, asks for. Its server name goes before anything else. */
  conflictOf(tenant: Claimant): ClaimConflict | undefined {
    return this.#conflictIn(tenant, this.#entryOf(tenant, this.#entries.get(tenant.metadata.name)).wanted);
  }

  /** The same for who asks and is answered at once: also what it may not have is another's, and names whose it is. */
  conflictWhenAsked(tenant: Claimant): ClaimConflict | undefined {
    const { wanted, notAllowed } = this.#entryOf(tenant, this.#entries.get(tenant.metadata.name));
    return this.#conflictIn(tenant, [...wanted, ...notAllowed.map((host) => `${HOST}${host}`)]);
  }

  /** The same for a configuration as a shard reads it. */
  conflictWith(tenant: Claimant, meaning: ConfigMeaning): ClaimConflict | undefined {
    return this.#conflictIn(tenant, this.#claimsIn(tenant, meaning));
  }

  /**
   * Claims what a shard read in a tenant's configuration, and its database as the server identifies it, before anything is started with it.
   * What another tenant has is claimed for the time when that lets go.
   * @returns who has something of it now
   */
  reserve(tenant: Claimant, { hash, meaning, databaseId }: Admission): ClaimConflict | undefined {
    const { metadata, spec, status } = tenant;
    // What runs is claimed as such; its configuration may not be the one asked for, of which this is kept.
    if (hash !== status.inEffect?.hash) {
      const since = this.#clock.now();
      this.#reserved.set(metadata.name, { hash, config: spec.config, meaning, databaseId, since });
      this.set(tenant);
    }
    return this.#conflictIn(tenant, [...this.#claimsIn(tenant, meaning), ...idClaim(databaseId)]);
  }

  /** What was reserved for the configuration of that hash, if that was a short while ago: names can lead elsewhere by now. */
  reservation(tenant: string, hash: string): Admission | undefined {
    const found = this.#reserved.get(tenant);
    return found?.hash === hash && this.#clock.now() - found.since < RESERVED_MS ? found : undefined;
  }

  #conflictIn(tenant: Claimant, claims: readonly string[]): ClaimConflict | undefined {
    const { name } = tenant.metadata;
    for (const claim of claims) {
      const holder = this.#holderOf(claim);
      if (holder !== undefined && holder !== name) return this.#rival(tenant, claim, holder);
    }
    return undefined;
  }

  /**
   * The rival that keeps a tenant from running at all. A tenant that serves, and asks for another's by a changed configuration, runs on with the
   * old one.
   */
  blockingConflictOf(tenant: Claimant): ClaimConflict | undefined {
    const rival = this.conflictOf(tenant);
    const runsOn = tenant.status.address !== undefined && rival?.reason !== "ServerNameTaken";
    return runsOn ? undefined : rival;
  }

  /** The hosts that lead to the tenant: those of the configuration in effect, or asked for where it never ran, that no other has. */
  hostsOf(tenant: Claimant): string[] {
    const { name } = tenant.metadata;
    const { held, wanted } = this.#entryOf(tenant, this.#entries.get(name));
    // The process of a dedicated tenant reads its configuration itself, and reports nothing.
    const isOnShard = tenant.status.inEffect !== undefined && tenant.status.dedicated === undefined;
    return (isOnShard ? held : wanted)
      .filter((claim) => claim.startsWith(HOST) && (this.#holderOf(claim) ?? name) === name)
      .map((claim) => claim.slice(HOST.length));
  }

  /** The hosts that the tenant asks for and may not have, as far as no shard has read its configuration; they do not lead to it. */
  hostsNotAllowed(tenant: Claimant): readonly string[] {
    return this.#entryOf(tenant, this.#entries.get(tenant.metadata.name)).notAllowed;
  }

  #rival({ spec }: Claimant, claim: string, holder: string): ClaimConflict {
    if (claim.startsWith(DATABASE)) {
      const database = claim.slice(DATABASE.length);
      return { reason: "DatabaseTaken", holder, message: belongsTo(`database ${database}`, holder) };
    }
    if (claim.startsWith(DATABASE_ID)) {
      const message = belongsTo("its database is, under another name, the one that", holder);
      return { reason: "DatabaseTaken", holder, message };
    }
    const host = claim.slice(HOST.length);
    const theirs = this.#entries.get(holder)?.serverName ?? "";
    if (host === hostOf(spec.serverName) && host === hostOf(theirs)) {
      const message = belongsTo(`server name ${spec.serverName}`, holder);
      return { reason: "ServerNameTaken", holder, message };
    }
    return { reason: "HostTaken", holder, message: belongsTo(`host ${host}`, holder) };
  }

  /** Reading a configuration is what costs here, so that it is done when it changed. */
  #entryOf(tenant: Claimant, known: Entry | undefined): Entry {
    const { metadata, spec, status } = tenant;
    const { serverName, config } = spec;
    const { databaseId, databaseServer } = status;
    const inEffect = status.inEffect?.hash;
    const started = hasStarted(status) || status.dedicated !== undefined;
    // The reason of a tenant that runs on is forgotten while its shard is waited for; that its configuration was refused is not.
    const refused = isTaken(status.reason) || status.refusedConfig !== undefined;
    const rank = { started, refused, since: metadata.creationTimestamp };
    const found = this.#reserved.get(metadata.name);
    const reservation = found?.config === config ? found : undefined;
    const allowedHosts = this.#allowedHosts(metadata.name);
    const allowed = allowedHosts.join(" ");
    if (
      known?.serverName === serverName &&
      known.config === config &&
      known.allowed === allowed &&
      known.inEffect === inEffect &&
      known.databaseId === databaseId &&
      known.databaseServer === databaseServer &&
      known.reservation === reservation
    )
      return { ...known, rank };
    const isNews =
      known !== undefined && (known.config !== config || (known.inEffect === inEffect && !known.runsAsAsked));
    const runsAsAsked = isSettled(tenant) && !isNews;
    const { wanted, notAllowed = [] } = reservation
      ? { wanted: [...this.#claimsIn(tenant, reservation.meaning), ...idClaim(reservation.databaseId)] }
      : this.#wantedBy(tenant, runsAsAsked, allowedHosts);
    const held = status.inEffect
      ? [...this.#claimsIn(tenant, status.inEffect.meaning), ...idClaim(databaseId)]
      : idClaim(databaseId);
    const claims = [...new Set([...wanted, ...held])];
    const asked = { serverName, config, allowed, inEffect, databaseId, databaseServer, reservation };
    return { ...asked, runsAsAsked, wanted, notAllowed, held, claims, rank };
  }

  #wantedBy(
    tenant: Claimant,
    runsAsAsked: boolean,
    allowed: readonly string[],
  ): { wanted: string[]; notAllowed?: string[] } {
    const { serverName, config } = tenant.spec;
    const { inEffect } = tenant.status;
    if (inEffect && runsAsAsked) return { wanted: this.#claimsIn(tenant, inEffect.meaning) };
    const reading = tryReadConfig(config);
    const asked = hostsOf(serverName, reading?.publicBaseUrl, reading?.hosts);
    const hosts = asked.filter((host) => isOwnHost(host, serverName, allowed));
    return {
      wanted: this.#claimsIn(tenant, { hosts, database: reading?.database ?? null }),
      notAllowed: asked.filter((host) => !hosts.includes(host)),
    };
  }

  #claimsIn({ metadata, status }: Claimant, { hosts, database }: Pick<ConfigMeaning, "hosts" | "database">): string[] {
    const key = database ? databaseKey(database) : this.#managedKey({ metadata, status });
    const claims = hosts.map((host) => `${HOST}${host}`);
    return key === undefined ? claims : [...claims, `${DATABASE}${key}`];
  }

  #managedKey(tenant: Placed): string | undefined {
    try {
      const database = this.#managed(tenant);
      return database.host === "" ? undefined : databaseKey(database);
    } catch (error) {
      // On a server that is not ours any more nobody else gets one.
      if (error instanceof StartFailure) return undefined;
      throw error;
    }
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
    const left = there[0] === name ? this.#ranked(claim, rest) : rest;
    this.#claimants.set(claim, left.length === 1 ? left[0]! : left);
    if (there[0] !== name || !this.#settled) return;
    for (const other of left) for (const listener of this.#listeners) listener(other);
  }

  #ranked(claim: string, names: readonly string[]): string[] {
    const holds = (name: string) => Number(this.#entries.get(name)!.held.includes(claim));
    return names.toSorted((a, b) => {
      const [first, second] = [this.#entries.get(a)!.rank, this.#entries.get(b)!.rank];
      return (
        holds(b) - holds(a) ||
        Number(second.started) - Number(first.started) ||
        Number(first.refused) - Number(second.refused) ||
        Date.parse(first.since) - Date.parse(second.since) ||
        (a < b ? -1 : 1)
      );
    });
  }
}

/** Whether its status says that it runs with what it asks for. A Secret that changes changes no status: who hears of that knows better. */
function isSettled({ metadata, status }: Claimant): boolean {
  const { inEffect, configHash, observedGeneration, refusedConfig } = status;
  return (
    inEffect !== undefined &&
    inEffect.hash === configHash &&
    observedGeneration === metadata.generation &&
    refusedConfig === undefined
  );
}

const HOST = "host ";
const DATABASE = "database ";
const DATABASE_ID = "database-id ";

function idClaim(databaseId: string | undefined): string[] {
  return databaseId === undefined ? [] : [`${DATABASE_ID}${databaseId}`];
}

function databaseKey(database: Database): string {
  const host = ["localhost", "::1", ""].includes(database.host) ? "127.0.0.1" : database.host.toLowerCase();
  return `${host}:${database.port}/${database.name}`;
}
