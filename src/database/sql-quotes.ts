/** What begins a part in which nothing else does: a comment, a literal (also one with escapes), a quoted name, a dollar quote. */
const OPENING =
  /--|\/\*|"|(?<![\w$\u0080-\uffff])[eE]'|'|(?<![\w$\u0080-\uffff])\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/g;
const IN_COMMENT = /\/\*|\*\//g;
const IN_ESCAPED = /\\.?|''|'/g;
const CONFORMING = /^SET standard_conforming_strings = (on|off);$/;

/** Reads SQL line by line, and knows after each whether something is open that goes on in the next one. */
export class SqlQuotes {
  /** What ends the part that is open. */
  #end: string | undefined;
  #depth = 0;
  #isEscaped = false;
  /** In every literal a backslash escapes what follows. */
  #alwaysEscapes = false;

  get isOpen(): boolean {
    return this.#end !== undefined;
  }

  read(line: string): void {
    const conforming = this.isOpen ? undefined : CONFORMING.exec(line)?.[1];
    if (conforming) this.#alwaysEscapes = conforming === "off";
    for (let at: number | undefined = 0; at !== undefined;)
      at = this.#end === undefined ? this.#opened(line, at) : this.#ended(line, at, this.#end);
  }

  /** @returns where it goes on in this line, if it does */
  #opened(line: string, from: number): number | undefined {
    OPENING.lastIndex = from;
    const [found] = OPENING.exec(line) ?? [];
    if (found === undefined || found === "--") return undefined;
    const at = OPENING.lastIndex;
    if (found === "/*") [this.#end, this.#depth] = ["*/", 1];
    else if (found.endsWith("'")) [this.#end, this.#isEscaped] = ["'", found !== "'" || this.#alwaysEscapes];
    else this.#end = found;
    return at;
  }

  #ended(line: string, from: number, end: string): number | undefined {
    // A doubled quote ends a part and begins another one of the kind, unless it is told apart by what is escaped in it.
    const isSearched = end === "*/" || (end === "'" && this.#isEscaped);
    if (!isSearched) {
      const at = line.indexOf(end, from);
      if (at === -1) return undefined;
      this.#end = undefined;
      return at + end.length;
    }
    const pattern = end === "*/" ? IN_COMMENT : IN_ESCAPED;
    pattern.lastIndex = from;
    for (let found = pattern.exec(line); found; found = pattern.exec(line)) {
      if (found[0] === "/*") this.#depth += 1;
      else if (found[0] === "'" || (found[0] === "*/" && (this.#depth -= 1) === 0)) {
        this.#end = undefined;
        return pattern.lastIndex;
      }
    }
    return undefined;
  }
}
