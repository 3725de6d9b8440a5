import type { Logger } from "pino";
import type { Clock } from "../../model/clock.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import {
  changedMonths,
  counted,
  filledMonths,
  isMonth,
  MONTHS_KEPT,
  monthBefore,
  monthOf,
  newAccount,
  oldestMonth,
  withEnd,
  withEpoch,
  withRate,
  withReading,
  type UsageAccount,
  type UsageMonth,
  type UsageOwner,
  type UsageReading,
} from "../../model/usage-month.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { TenantLoad } from "../../ports/shard-control.ts";
import type { UsageEntry, UsageHistory } from "../../ports/usage-history.ts";
import type { CachedReader } from "../cached-reader.ts";
import { Turns } from "../turns.ts";
import { Rounds } from "./rounds.ts";

/** What is counted meanwhile is counted again after a crash, as counters only rise. */
const WRITE_EVERY_MS = 300_000;
const RATE_OVER_MS = 60_000;

/** @param requests absent where somebody else counts them */
type CountedLoad = Pick<TenantLoad, "run" | "epoch" | "cpuSeconds"> &
  Partial<Pick<TenantLoad, "imageSeconds" | "requests">>;

interface Open {
  account: UsageAccount;
  /** As it is in the store. */
  written: UsageAccount;
  /** Since when requests are counted for their rate. */
  window?: { run: string; at: number; requests: number };
}

export interface RecorderParts {
  history: UsageHistory;
  reader: Pick<CachedReader, "get" | "values">;
  clock: Clock;
  log: Logger;
}

/**
 * Adds up what tenants take by month, from totals that begin again with each start of a tenant. In memory are the accounts of those that run; what
 * changed is written every few minutes, and at once where a start has ended, whose totals nobody can ask for again.
 */
export class UsageRecorder {
  readonly #parts: RecorderParts;
  readonly #open = new Map<string, Open>();
  readonly #opening = new Map<string, Promise<void>>();
  readonly #writes = new Turns();
  readonly #rounds: Rounds;
  /** What earlier processes left unread, and tenants of before the history began; filled when it is first asked. */
  #fromBefore: Map<string, UsageOwner> | undefined;
  #prunedFor = "";
  #hasFailed = false;

  constructor(parts: RecorderParts) {
    this.#parts = parts;
    this.#rounds = new Rounds(parts.clock, WRITE_EVERY_MS, () => this.flush());
  }

  start(): void {
    this.#rounds.start();
  }

  async close(): Promise<void> {
    await this.#rounds.close();
    await this.flush();
  }

  /** What a shard says of its tenants. Never rejects: a figure that cannot be noted is counted at the next look. */
  async looked(at: number, { tenants }: { tenants: Record<string, CountedLoad> }): Promise<void> {
    for (const [tenant, load] of Object.entries(tenants)) await this.#note(tenant, at, load);
  }

  /** The last figures of a start. */
  async stopped(tenant: string, load: TenantLoad): Promise<void> {
    await this.#note(tenant, this.#parts.clock.now(), load);
    const owner = this.#ownerOf(tenant);
    if (owner) await this.#write([keyOf(owner)], true);
  }

  /** What its database says; it knows all until `upTo`. */
  async read(owner: UsageOwner, reading: UsageReading, upTo: number): Promise<void> {
    await this.#change(owner, (open) => {
      open.account = withReading(open.account, this.#parts.clock.now(), reading, upTo);
    });
    this.#fromBefore?.delete(keyOf(owner));
    // It will not be asked again before it has run, so neither will it be after a restart of ours.
    if (!this.#runs(owner)) await this.#write([keyOf(owner)], true);
  }

  /** The account of a tenant that is being deleted: its last row is of this month. */
  async ended(owner: UsageOwner): Promise<void> {
    try {
      await this.#change(owner, (open) => {
        open.account = withEnd(open.account, this.#parts.clock.now());
      });
      await this.#write([keyOf(owner)], true);
    } catch (error) {
      this.#complain(error);
    }
  }

  /** What is in memory of a tenant that gets another name is written before, and read again afterwards. */
  async renamed<T>(owner: UsageOwner, to: string, rename: () => Promise<T>): Promise<T> {
    const former = keyOf(owner);
    const next = { ...owner, tenant: to };
    await this.#write([former], true);
    return this.#writes.run(async () => {
      const result = await rename();
      const wasUnread = this.#fromBefore?.delete(former) === true;
      const wasOpen = this.#open.delete(former);
      if (wasUnread) this.#fromBefore?.set(keyOf(next), next);
      if (wasOpen) await this.#read(next);
      return result;
    });
  }

  async positionOf(owner: UsageOwner): Promise<UsageAccount["position"] | undefined> {
    return this.#open.get(keyOf(owner))?.account.position ?? this.#parts.history.position(owner);
  }

  /** Those that were used since their databases were last asked, or were never asked. */
  async unread(): Promise<UsageOwner[]> {
    const open = [...this.#open.values()].map(({ account }) => account.position);
    this.#fromBefore ??= await this.#leftUnread();
    const before = [...this.#fromBefore].filter(([key]) => !this.#open.has(key)).map(([, owner]) => owner);
    return [...open.filter(({ usedAt = "", readAt }) => readAt === undefined || usedAt > readAt), ...before];
  }

  /**
   * One row per tenant and month, by tenant.
   * @param month default: this month of all, or all months of the one
   * @throws UserError
   */
  async months({ tenant, month }: { tenant?: string; month?: string }): Promise<UsageMonth[]> {
    const { clock, history, reader } = this.#parts;
    const now = monthOf(clock.now());
    if (month !== undefined && !isMonth(month))
      throw new UserError("InvalidInput", `${month} is no month; allowed is one such as ${now}`);
    const all = Array.from({ length: MONTHS_KEPT }, (_, index) => monthBefore(now, MONTHS_KEPT - 1 - index));
    const asked = month === undefined ? (tenant === undefined ? [now] : all) : all.filter((known) => known === month);
    await this.#write([...this.#open.keys()], false);
    const [only] = asked;
    // Of all tenants, all months would be a million rows.
    const rows =
      tenant !== undefined ? await history.list(tenant) : only === undefined ? [] : await history.around(only);
    if (tenant !== undefined && rows.length === 0 && !reader.get("Tenant", tenant))
      throw new UserError("NotFound", `there is no tenant ${tenant}, and no record of what one of that name took`);
    const filled = filledMonths(rows, (owner) => this.#isThere(owner), asked);
    return filled.map((row) => ({ ...row, cpuSeconds: Math.round(row.cpuSeconds * 1000) / 1000 }));
  }

  /** Writes what changed enough to matter. */
  async flush(): Promise<void> {
    const { clock, history } = this.#parts;
    await this.#write([...this.#open.keys()], false);
    this.#letGo();
    const oldest = oldestMonth(clock.now());
    if (this.#prunedFor === oldest || this.#hasFailed) return;
    try {
      await history.prune(oldest, (owner) => this.#isThere(owner));
      this.#prunedFor = oldest;
    } catch (error) {
      this.#complain(error);
    }
  }

  async #leftUnread(): Promise<Map<string, UsageOwner>> {
    const { history, reader } = this.#parts;
    const all = new Map([...reader.values("Tenant")].map((tenant) => [keyOf(ownerOf(tenant)), ownerOf(tenant)]));
    for (const owner of await history.owners()) all.delete(keyOf(owner));
    for (const owner of await history.unread()) all.set(keyOf(owner), owner);
    return all;
  }

  async #note(tenant: string, at: number, load: CountedLoad): Promise<void> {
    const owner = this.#ownerOf(tenant);
    const { run, epoch, cpuSeconds, imageSeconds = 0, requests } = load;
    if (!owner || run === undefined || epoch === undefined) return;
    let ended = false;
    try {
      await this.#change(owner, (open) => {
        open.account = withEpoch(open.account, this.#parts.reader.get("Tenant", tenant)?.status.epoch ?? 0);
        const { runs } = open.account.position;
        ended = runs.length > 0 && runs.every((known) => known.run !== run);
        // Its images take processors too, if not the shard's own.
        open.account = counted(open.account, at, {
          run,
          epoch,
          requests: requests ?? 0,
          cpuSeconds: cpuSeconds + imageSeconds,
        });
        if (requests !== undefined) noteRate(open, at, run, requests);
      });
      if (ended) await this.#write([keyOf(owner)], true);
    } catch (error) {
      this.#complain(error);
    }
  }

  async #change(owner: UsageOwner, change: (open: Open) => void): Promise<void> {
    const key = keyOf(owner);
    for (;;) {
      const open = this.#open.get(key);
      if (open) return change(open);
      const opening = this.#opening.get(key) ?? this.#read(owner).finally(() => this.#opening.delete(key));
      this.#opening.set(key, opening);
      await opening;
    }
  }

  async #read({ tenant, serverName }: UsageOwner): Promise<void> {
    const { history } = this.#parts;
    const owner = { tenant, serverName };
    const position = (await history.position(owner)) ?? newAccount(owner).position;
    const rows = (await history.list(tenant)).filter((row) => row.serverName === serverName);
    const account = { position, months: Object.fromEntries(rows.map((row) => [row.month, row])) };
    this.#open.set(keyOf(owner), { account, written: account });
  }

  /** @param all also what would not be worth a write */
  #write(keys: readonly string[], all: boolean): Promise<void> {
    return this.#writes.run(async () => {
      const [entries, taken]: [UsageEntry[], [Open, UsageAccount][]] = [[], []];
      for (const key of keys) {
        const open = this.#open.get(key);
        if (!open || open.account === open.written) continue;
        const { account, written } = open;
        if (!all && changedMonths(written, account).length === 0) continue;
        const months = Object.values(account.months).filter((month) => written.months[month.month] !== month);
        entries.push({ position: account.position, months });
        taken.push([open, account]);
      }
      try {
        await this.#parts.history.write(entries);
        for (const [open, account] of taken) open.written = account;
        this.#hasFailed = false;
      } catch (error) {
        this.#complain(error);
      }
    });
  }

  /** Forgets those that run nowhere, of which everything is written and read. */
  #letGo(): void {
    for (const [key, { account, written }] of this.#open) {
      const { usedAt = "", readAt } = account.position;
      const isDone = (readAt !== undefined && usedAt <= readAt) || !this.#isThere(account.position);
      if (!this.#runs(account.position) && account === written && isDone) this.#open.delete(key);
    }
  }

  #ownerOf(tenant: string): UsageOwner | undefined {
    const found = this.#parts.reader.get("Tenant", tenant);
    return found && ownerOf(found);
  }

  #runs({ tenant }: UsageOwner): boolean {
    return this.#parts.reader.get("Tenant", tenant)?.status.shard !== undefined;
  }

  #isThere({ tenant, serverName }: UsageOwner): boolean {
    return this.#parts.reader.get("Tenant", tenant)?.spec.serverName === serverName;
  }

  #complain(error: unknown): void {
    if (!this.#hasFailed)
      this.#parts.log.error({ why: messageOf(error) }, "what tenants take cannot be kept; tried again");
    this.#hasFailed = true;
  }
}

export function ownerOf({ metadata, spec }: Tenant): UsageOwner {
  return { tenant: metadata.name, serverName: spec.serverName };
}

function keyOf({ tenant, serverName }: UsageOwner): string {
  return `${tenant} ${serverName}`;
}

/** Over a minute or somewhat more, as shards are asked from time to time. */
function noteRate(open: Open, at: number, run: string, requests: number): void {
  const { window } = open;
  if (window?.run !== run || requests < window.requests) {
    open.window = { run, at, requests };
    return;
  }
  const passed = at - window.at;
  if (passed < RATE_OVER_MS) return;
  // After a pause in which nobody asked it is the rate of no minute.
  if (passed < 2 * RATE_OVER_MS)
    open.account = withRate(open.account, at, ((requests - window.requests) * RATE_OVER_MS) / passed);
  open.window = { run, at, requests };
}
