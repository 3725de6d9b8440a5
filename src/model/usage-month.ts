import { defined } from "./defined.ts";

/** What a tenant took in one month: the basis of a bill. What could not be had is missing; docs/usage.md says what each figure is. */
export interface UsageFigures {
  /** Accounts at the last look in the month. */
  users?: number;
  /** Of all that were active in the month. */
  activeUsers?: number;
  /** Of the day with the most. */
  activeUsersDailyPeak?: number;
  messages?: number;
  /** At the last look in the month. */
  mediaBytes?: number;
  databaseBytes?: number;
  cpuSeconds: number;
  requests: number;
  peakRequestsPerMinute?: number;
}

/** `tenant` and `serverName` together say whose it is: a name may be given again, to another. */
export interface UsageOwner {
  tenant: string;
  serverName: string;
}

export interface UsageMonth extends UsageOwner, UsageFigures {
  /** `2026-01`, in UTC. */
  month: string;
  updatedAt: string;
}

/** How far the counters of one start of a tenant have been counted. */
export interface CountedRun {
  run: string;
  /** Of two starts, the one with the higher epoch is the later one; a shard that comes up again starts with the same. */
  epoch: number;
  cpuSeconds: number;
  requests: number;
}

/** What is needed to go on counting. It is kept together with the months that it was counted into: neither is true without the other. */
export interface UsagePosition extends UsageOwner {
  runs: CountedRun[];
  /** Starts up to this epoch that are not among them are over, or were forgotten: counted already, and never again. */
  settledEpoch?: number;
  /** Messages up to here are counted: a place in the order of its database's events. */
  messagesTo?: number;
  /** When anybody last asked it for something, and up to when its database has told all. */
  usedAt?: string;
  readAt?: string;
}

/** What one tenant's database says. */
export interface UsageReading {
  users?: number;
  mediaBytes?: number;
  databaseBytes?: number;
  active?: { month: string; activeUsers: number; activeUsersDailyPeak: number }[];
  /** Behind the place that was asked for; undefined: it was never asked. */
  messages?: { from: number | undefined; to: number; sent: { month: string; count: number }[] };
}

export const MONTHS_KEPT = 13;
/** While a move is under way, or a shard does not answer, several may have a tenant. */
const RUNS_KEPT = 8;

/** An account of what a tenant took: the months that are open, and the place from which it is counted on. */
export interface UsageAccount {
  position: UsagePosition;
  /** By month; those from before, which do not change any more, are only in the store. */
  months: Readonly<Record<string, UsageMonth>>;
}

export function newAccount({ tenant, serverName }: UsageOwner): UsageAccount {
  return { position: { tenant, serverName, runs: [] }, months: {} };
}

/** @param at Unix time in milliseconds */
export function monthOf(at: number): string {
  return new Date(at).toISOString().slice(0, 7);
}

/** When a month begins, in milliseconds. */
export function beginOf(month: string): number {
  return Date.parse(`${month}-01T00:00:00Z`);
}

export function monthBefore(month: string, count = 1): string {
  const begin = new Date(beginOf(month));
  begin.setUTCMonth(begin.getUTCMonth() - count);
  return monthOf(begin.getTime());
}

export function isMonth(text: string): boolean {
  return /^\d{4}-(0[1-9]|1[0-2])$/.test(text);
}

/** The oldest month that is kept. */
export function oldestMonth(at: number): string {
  return monthBefore(monthOf(at), MONTHS_KEPT - 1);
}

/**
 * Counts what a start of the tenant took since it was last looked at, into the month of the look. A look that is late, or comes twice, counts
 * nothing twice: totals of a start only rise.
 */
export function counted(account: UsageAccount, at: number, look: CountedRun): UsageAccount {
  const { run, epoch, cpuSeconds, requests } = look;
  const { runs: known, settledEpoch = 0 } = account.position;
  const found = known.find((other) => other.run === run);
  if (!found && epoch <= settledEpoch) return account;
  const before = found ?? { cpuSeconds: 0, requests: 0 };
  const now = {
    run,
    epoch,
    cpuSeconds: Math.max(before.cpuSeconds, cpuSeconds),
    requests: Math.max(before.requests, requests),
  };
  const position = withRun(account.position, now);
  const added = { cpuSeconds: now.cpuSeconds - before.cpuSeconds, requests: now.requests - before.requests };
  if (added.cpuSeconds === 0 && added.requests === 0) return { ...account, position };
  const changed = withMonth(account, monthOf(at), at, (month) => ({
    cpuSeconds: month.cpuSeconds + added.cpuSeconds,
    requests: month.requests + added.requests,
  }));
  const used = added.requests > 0 ? { usedAt: new Date(at).toISOString() } : {};
  return { ...changed, position: { ...position, ...used } };
}

/** Forgets the earliest start where there are too many. It may still be seen again: then it must not be taken for a new one. */
function withRun(position: UsagePosition, now: CountedRun): UsagePosition {
  const runs = [...position.runs.filter(({ run }) => run !== now.run), now];
  if (runs.length <= RUNS_KEPT) return { ...position, runs };
  const lowest = Math.min(...runs.map(({ epoch }) => epoch));
  const forgotten = runs.findIndex(({ epoch }) => epoch === lowest);
  const kept = runs.toSpliced(forgotten, 1);
  // A process comes up again with the same epoch only after the one before it has ended.
  const settled = kept.some(({ epoch }) => epoch === lowest) ? lowest - 1 : lowest;
  return { ...position, runs: kept, settledEpoch: Math.max(position.settledEpoch ?? 0, settled) };
}

export function withRate(account: UsageAccount, at: number, perMinute: number): UsageAccount {
  const rounded = Math.round(perMinute);
  const { peakRequestsPerMinute: before = 0 } = account.months[monthOf(at)] ?? {};
  if (rounded <= before) return account;
  return withMonth(account, monthOf(at), at, () => ({ peakRequestsPerMinute: rounded }));
}

/**
 * Takes in what the tenant's database says: figures of now for this month, those of a month for that one.
 * @param upTo until when it knows all; what was used later is still to be read
 */
export function withReading(account: UsageAccount, at: number, reading: UsageReading, upTo = at): UsageAccount {
  const { active = [], messages: found, ...now } = reading;
  // Of two that were asked at once, one has counted them.
  const messages = found?.from === account.position.messagesTo ? found : undefined;
  // A database that was brought along knows of more than what was here.
  const first = Object.keys(account.months).toSorted()[0] ?? monthOf(at);
  const isOurs = (month: string) => month >= first && month >= oldestMonth(at) && month <= monthOf(at);
  let next = withMonth(account, monthOf(at), at, () => defined(now));
  for (const { month, activeUsers, activeUsersDailyPeak } of active)
    if (isOurs(month) && (next.months[month] !== undefined || activeUsers > 0))
      next = withMonth(next, month, at, (before) => ({
        // Those whose accounts are gone by now were active nevertheless.
        activeUsers: Math.max(before.activeUsers ?? 0, activeUsers),
        activeUsersDailyPeak: Math.max(before.activeUsersDailyPeak ?? 0, activeUsersDailyPeak),
      }));
  if (messages) {
    const add = (month: string, count: number) => {
      next = withMonth(next, month, at, ({ messages: before = 0 }) => ({ messages: before + count }));
    };
    add(monthOf(at), 0);
    for (const { month, count } of messages.sent) if (isOurs(month) && count > 0) add(month, count);
  }
  const position = { ...next.position, readAt: new Date(upTo).toISOString() };
  return { ...next, position: messages ? { ...position, messagesTo: messages.to } : position };
}

/** Makes sure that there is a row of this month: of a tenant that ends. */
export function withEnd(account: UsageAccount, at: number): UsageAccount {
  return Object.keys(account.months).length === 0 ? account : withMonth(account, monthOf(at), at, () => ({}));
}

/**
 * Forgets the starts and the place in the database of a tenant that was removed with its data and made again, whose epochs begin again: none is higher than the tenant's own.
 * @param epoch the tenant's; 0: not known yet
 */
export function withEpoch(account: UsageAccount, epoch: number): UsageAccount {
  const { runs, settledEpoch = 0, messagesTo: _, ...position } = account.position;
  if (epoch === 0 || (settledEpoch < epoch && runs.every((run) => run.epoch <= epoch))) return account;
  return { ...account, position: { ...position, runs: [] } };
}

/** A write for less would be one every few minutes for a tenant that nobody uses: what is left out is counted with the next one. */
const CPU_SECONDS_WORTH_A_WRITE = 1;
const PART_OF_BYTES_WORTH_A_WRITE = 0.01;

/** The months that differ from what is written by something that matters. */
export function changedMonths(written: UsageAccount, now: UsageAccount): UsageMonth[] {
  return Object.values(now.months).filter((month) => {
    const before = written.months[month.month];
    return before !== month && (before === undefined || differs(before, month));
  });
}

function differs(before: UsageMonth, now: UsageMonth): boolean {
  const { cpuSeconds, databaseBytes = 0 } = before;
  if (now.cpuSeconds - cpuSeconds >= CPU_SECONDS_WORTH_A_WRITE) return true;
  if (Math.abs((now.databaseBytes ?? 0) - databaseBytes) > databaseBytes * PART_OF_BYTES_WORTH_A_WRITE) return true;
  const rest = (month: UsageMonth) => JSON.stringify({ ...month, cpuSeconds: 0, databaseBytes: 0, updatedAt: "" });
  return rest(before) !== rest(now);
}

function withMonth(
  account: UsageAccount,
  month: string,
  at: number,
  change: (before: UsageMonth) => Partial<UsageFigures>,
): UsageAccount {
  const { tenant, serverName } = account.position;
  const before = account.months[month] ?? newMonth({ tenant, serverName }, account, month);
  const after = { ...before, ...change(before) };
  const figures = (of: UsageMonth) => JSON.stringify({ ...of, updatedAt: "" });
  if (account.months[month] !== undefined && figures(before) === figures(after)) return account;
  return { ...account, months: { ...account.months, [month]: { ...after, updatedAt: new Date(at).toISOString() } } };
}

/** What a tenant has does not end with the month; what it did does. */
function newMonth(owner: UsageOwner, { months }: Pick<UsageAccount, "months">, month: string): UsageMonth {
  const before = Object.values(months)
    .filter((known) => known.month < month)
    .toSorted((a, b) => (a.month < b.month ? -1 : 1))
    .at(-1);
  return { ...owner, ...stockOf(before), month, cpuSeconds: 0, requests: 0, updatedAt: "" };
}

function stockOf(month: UsageMonth | undefined): Partial<UsageFigures> {
  if (!month) return {};
  const { users, mediaBytes, databaseBytes, messages, activeUsers } = month;
  const did = {
    ...(messages === undefined ? {} : { messages: 0 }),
    ...(activeUsers === undefined ? {} : { activeUsers: 0, activeUsersDailyPeak: 0 }),
  };
  return { ...defined({ users, mediaBytes, databaseBytes }), ...did };
}

/**
 * One row per tenant and month, also for months in which a tenant slept: nothing is written for them, as nothing changed.
 * @param rows all that are kept of the tenants that are asked about
 * @param isThere of a deleted tenant there is nothing after its last row
 * @param months those that are asked for, ascending
 */
export function filledMonths(
  rows: readonly UsageMonth[],
  isThere: (owner: UsageOwner) => boolean,
  months: readonly string[],
): UsageMonth[] {
  const byOwner = new Map<string, UsageMonth[]>();
  for (const row of rows) {
    const key = `${row.tenant} ${row.serverName}`;
    byOwner.set(key, [...(byOwner.get(key) ?? []), row]);
  }
  const filled = [...byOwner.values()].flatMap((its) => {
    const sorted = its.toSorted((a, b) => (a.month < b.month ? -1 : 1));
    const [first, last] = [sorted[0], sorted.at(-1)];
    if (!first || !last) return [];
    return months
      .filter((month) => month >= first.month && (month <= last.month || isThere(last)))
      .map((month) => sorted.find((row) => row.month === month) ?? quietMonth(sorted, month));
  });
  return filled.toSorted((a, b) => compareText(a.tenant, b.tenant) || compareText(a.month, b.month));
}

function quietMonth(sorted: readonly UsageMonth[], month: string): UsageMonth {
  const before = sorted.findLast((row) => row.month < month)!;
  const { tenant, serverName, updatedAt } = before;
  return { ...newMonth({ tenant, serverName }, { months: { [before.month]: before } }, month), updatedAt };
}

/** For sorting. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
