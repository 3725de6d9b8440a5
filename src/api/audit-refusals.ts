import { UserError } from "../model/errors.ts";
import type { Role } from "../model/role.ts";

/** Of each caller, and of all that nobody knows together. */
const KEPT_A_MINUTE = 20;
/**
 * Of what one person changes: 120 ordinary changes, above what a script does that makes accounts one by one. Who does nothing else fills the log on
 * Kubernetes in about a day.
 */
const CHARACTERS_A_MINUTE = 60_000;
const ORDINARY_ENTRY = 500;
const MINUTE_MS = 60_000;

interface Refusable {
  actor: string | null;
  role: Role | null;
  status: number;
}

interface Counted<Entry> {
  listed: number;
  omitted: number;
  last?: Entry;
}

/**
 * What callers were refused, bounded: a log of bounded size is not to be filled by who repeats what is refused, with or without a token, until what
 * people did is gone from it. The last of those in a minute that have no entry of their own says how many there were. Who may do anything is not
 * bounded.
 */
export class Refusals<Entry extends Refusable> {
  readonly #append: (entry: Entry & { omitted?: number }) => unknown;
  /** By caller; null: all that nobody knows. */
  readonly #counted = new Map<string | null, Counted<Entry>>();

  /** @param append what becomes of the entry that says how many were omitted */
  constructor(append: (entry: Entry & { omitted?: number }) => unknown) {
    this.#append = append;
  }

  /** @returns whether it has an entry of its own */
  admits(entry: Entry): boolean {
    const { actor, role, status } = entry;
    // What failed for another reason may have been done in part.
    const isRefused = status >= 400 && (actor === null || status < 500);
    if (!isRefused || role === "admin") return true;
    if (this.#counted.size === 0) setTimeout(() => this.#next(), MINUTE_MS).unref();
    const counted = this.#counted.get(actor) ?? { listed: 0, omitted: 0 };
    this.#counted.set(actor, counted);
    if (counted.listed < KEPT_A_MINUTE) {
      counted.listed += 1;
      return true;
    }
    if (counted.last) counted.omitted += 1;
    counted.last = entry;
    return false;
  }

  #next(): void {
    const all = [...this.#counted.values()];
    this.#counted.clear();
    for (const { last, omitted } of all) if (last) this.#append(omitted === 0 ? last : { ...last, omitted });
  }
}

/**
 * What the changes of one person take in the log. A change has its entry whoever makes it, and whole; so that these fill no log, whoever makes too
 * many, or too long ones, waits.
 */
export class ChangeBudget {
  readonly #now: () => Date;
  /** What is not paid off, which it is at an even pace. */
  readonly #debts = new Map<string, { characters: number; at: number }>();

  constructor(now: () => Date) {
    this.#now = now;
  }

  /** Before a change. @throws UserError RateLimited */
  ask(actor: string): void {
    const wait = (this.#debtOf(actor) + ORDINARY_ENTRY - CHARACTERS_A_MINUTE) * (MINUTE_MS / CHARACTERS_A_MINUTE);
    if (wait > 0)
      throw new UserError(
        "RateLimited",
        `a tenant admin may make ${CHARACTERS_A_MINUTE / ORDINARY_ENTRY} changes a minute, or fewer long ones; try again in ${Math.ceil(wait / 1000)} s`,
      );
    this.#add(actor, ORDINARY_ENTRY);
  }

  /** After it. */
  charge(actor: string, entry: object): void {
    this.#add(actor, Math.max(0, JSON.stringify(entry).length - ORDINARY_ENTRY));
  }

  #add(actor: string, characters: number): void {
    this.#debts.set(actor, { characters: this.#debtOf(actor) + characters, at: this.#now().getTime() });
  }

  #debtOf(actor: string): number {
    const { characters, at } = this.#debts.get(actor) ?? { characters: 0, at: 0 };
    const paid = (this.#now().getTime() - at) * (CHARACTERS_A_MINUTE / MINUTE_MS);
    return Math.max(0, characters - Math.max(0, paid));
  }
}
