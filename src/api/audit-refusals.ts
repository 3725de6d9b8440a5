/** From everywhere together. */
const KEPT_A_MINUTE = 20;
const MINUTE_MS = 60_000;

/**
 * What nobody who is known was refused, bounded: a log of bounded size is not to be filled by somebody without a token until what people did is gone
 * from it. The last of those in a minute that have no entry of their own says how many there were.
 */
export class Refusals<Entry extends { actor: string | null; status: number }> {
  readonly #append: (entry: Entry & { omitted?: number }) => unknown;
  #listed = 0;
  #omitted = 0;
  #last: Entry | undefined;
  #isCounting = false;

  /** @param append what becomes of the entry that says how many were omitted */
  constructor(append: (entry: Entry & { omitted?: number }) => unknown) {
    this.#append = append;
  }

  /** @returns whether it has an entry of its own */
  admits(entry: Entry): boolean {
    if (entry.actor !== null || entry.status < 400) return true;
    if (!this.#isCounting) setTimeout(() => this.#next(), MINUTE_MS).unref();
    this.#isCounting = true;
    if (this.#listed < KEPT_A_MINUTE) {
      this.#listed += 1;
      return true;
    }
    if (this.#last) this.#omitted += 1;
    this.#last = entry;
    return false;
  }

  #next(): void {
    const [last, omitted] = [this.#last, this.#omitted];
    this.#listed = this.#omitted = 0;
    this.#last = undefined;
    this.#isCounting = false;
    if (last) this.#append(omitted === 0 ? last : { ...last, omitted });
  }
}
