/** Keeps one copy of texts that many hold: what homeservers of one release say is mostly the same. */
export class Interner {
  readonly #copies = new Map<string, { text: string; holders: number }>();
  #bytes = 0;

  /** Of all copies, in bytes: texts are latin1. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @returns the one copy, to be given back */
  take(text: string): string {
    const copy = this.#copies.get(text);
    if (copy) {
      copy.holders += 1;
      return copy.text;
    }
    this.#copies.set(text, { text, holders: 1 });
    this.#bytes += text.length;
    return text;
  }

  give(text: string): void {
    const copy = this.#copies.get(text);
    if (!copy) return;
    copy.holders -= 1;
    if (copy.holders > 0) return;
    this.#copies.delete(text);
    this.#bytes -= text.length;
  }
}
