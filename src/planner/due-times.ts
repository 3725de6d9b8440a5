interface Entry {
  name: string;
  at: number;
}

/** Names in the order of a time that each has: what is due is found without a look at the rest. */
export class DueTimes {
  /** A binary heap. What was changed or removed since stays in it until it comes up. */
  readonly #heap: Entry[] = [];
  readonly #at = new Map<string, number>();

  set(name: string, at: number): void {
    if (this.#at.get(name) === at) return;
    this.#at.set(name, at);
    this.#heap.push({ name, at });
    this.#rise(this.#heap.length - 1);
  }

  delete(name: string): void {
    this.#at.delete(name);
    // Else each change of a name that is never due would stay.
    if (this.#heap.length > 2 * this.#at.size + 16) this.#rebuild();
  }

  /** At most `limit` of those that are due by `now`, first the earliest, then by name. Takes none of them out. */
  due(now: number, limit: number): string[] {
    const taken: Entry[] = [];
    let last = Number.NEGATIVE_INFINITY;
    const seen = new Set<string>();
    for (let first = this.#heap[0]; first && first.at <= now; first = this.#heap[0]) {
      // Of several at one time all are looked at, as their order in the heap is by chance.
      if (taken.length >= limit && first.at > last) break;
      this.#pop();
      if (this.#at.get(first.name) !== first.at || seen.has(first.name)) continue;
      seen.add(first.name);
      taken.push(first);
      last = first.at;
    }
    for (const entry of taken) {
      this.#heap.push(entry);
      this.#rise(this.#heap.length - 1);
    }
    return taken
      .toSorted((a, b) => a.at - b.at || (a.name < b.name ? -1 : 1))
      .slice(0, limit)
      .map(({ name }) => name);
  }

  #rebuild(): void {
    this.#heap.length = 0;
    for (const [name, at] of this.#at) {
      this.#heap.push({ name, at });
      this.#rise(this.#heap.length - 1);
    }
  }

  #pop(): void {
    const last = this.#heap.pop();
    if (!last || this.#heap.length === 0) return;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const right = this.#heap[left + 1];
      const leftEntry = this.#heap[left];
      if (!leftEntry) break;
      const least = right && right.at < leftEntry.at ? left + 1 : left;
      const child = this.#heap[least];
      if (!child || child.at >= last.at) break;
      this.#heap[at] = child;
      at = least;
    }
    this.#heap[at] = last;
  }

  #rise(from: number): void {
    const entry = this.#heap[from];
    if (!entry) return;
    let at = from;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = this.#heap[above];
      if (!parent || parent.at <= entry.at) break;
      this.#heap[at] = parent;
      at = above;
    }
    this.#heap[at] = entry;
  }
}
