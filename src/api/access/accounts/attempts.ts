import { dropOldest } from "../../../model/drop-oldest.ts";
import { UserError } from "../../../model/errors.ts";

/** A person mistypes a few times. */
const FREE = 5;
const LONGEST_WAIT_MS = 15 * 60_000;
/** Names that somebody makes up are counted like those that there are: nobody learns which is which. */
const MOST_NAMES = 10_000;

/** Slows down who guesses for one account, from however many addresses: each failure beyond a few doubles the wait. */
export class Attempts {
  readonly #now: () => number;
  readonly #failed = new Map<string, { count: number; notBefore: number }>();

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Counts an attempt as failed until `succeeded` says otherwise: those made at once are counted, too. @throws UserError RateLimited */
  begin(name: string): void {
    const now = this.#now();
    const { count, notBefore } = this.#failed.get(name) ?? { count: 0, notBefore: 0 };
    if (now < notBefore)
      throw new UserError(
        "RateLimited",
        `too many attempts for this account: wait ${Math.ceil((notBefore - now) / 1000)} seconds, or sign in with a passkey`,
      );
    const wait = count + 1 < FREE ? 0 : Math.min(LONGEST_WAIT_MS, 1000 * 2 ** (count + 1 - FREE));
    this.#failed.delete(name);
    this.#failed.set(name, { count: count + 1, notBefore: now + wait });
    dropOldest(this.#failed, MOST_NAMES);
  }

  succeeded(name: string): void {
    this.#failed.delete(name);
  }
}
