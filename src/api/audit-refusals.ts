import { UserError } from "../model/errors.ts";
import type { Role } from "../model/role.ts";

/** Of each caller, and of all that nobody knows together. */
const KEPT_A_MINUTE = 20;
/** Above what a script does that makes accounts one by one. */
const CHANGES_A_MINUTE = 120;
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

/** How often somebody changes something. A change has its entry, whoever makes it; so that these fill no log, there are not too many. */
export class ChangeRate {
  readonly #now: () => Date;
  readonly #counts = new Map<string, number>();
  #minute = 0;

  constructor(now: () => Date) {
    this.#now = now;
  }

  /** @throws UserError RateLimited */
  count(actor: string): void {
    const minute = Math.floor(this.#now().getTime() / MINUTE_MS);
    if (minute !== this.#minute) this.#counts.clear();
    this.#minute = minute;
    const count = (this.#counts.get(actor) ?? 0) + 1;
    this.#counts.set(actor, count);
    if (count > CHANGES_A_MINUTE)
      throw new UserError(
        "RateLimited",
        `a tenant admin may make ${CHANGES_A_MINUTE} changes a minute; try again in the next one`,
      );
  }
}
