interface Mark {
  /** All that had been committed at `at` is in the log before it. */
  position: bigint;
  /** Another text after anything was committed. */
  committed: string;
  /** Milliseconds. */
  at: number;
}

/** More are coalesced: a target that is away for a day needs no finer answer. */
const MOST_MARKS = 1_000;

/** Until when all that was committed is in the target, as the log's positions are seen time and again. */
export class Progress {
  readonly #marks: Mark[] = [];
  /** The end of what is in the target. */
  shipped = 0n;
  /** When it was looked first; milliseconds. */
  since: number | undefined;

  /** @param at when that was seen, or before; milliseconds */
  note(position: bigint, committed: string, at: number): void {
    this.since ??= at;
    const last = this.#marks.at(-1);
    // Nothing to be shipped came since: an idle server is never behind.
    if (last?.committed === committed) last.at = at;
    else this.#marks.push({ position, committed, at });
    if (this.#marks.length > MOST_MARKS) this.#marks.splice(1, 1);
    this.#forget();
  }

  ship(end: bigint): void {
    if (end > this.shipped) this.shipped = end;
    this.#forget();
  }

  /** Undefined as long as that is not known. */
  get until(): number | undefined {
    const [first] = this.#marks;
    return first && first.position <= this.shipped ? first.at : undefined;
  }

  get isBehind(): boolean {
    return (this.#marks.at(-1)?.position ?? 0n) > this.shipped;
  }

  #forget(): void {
    const done = this.#marks.findLastIndex(({ position }) => position <= this.shipped);
    if (done > 0) this.#marks.splice(0, done);
  }
}
