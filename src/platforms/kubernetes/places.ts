/** At most `count` at a time, first come, first served. */
export class Places {
  #free: number;
  readonly #waiting: { go: () => void; gone: boolean }[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** @throws DOMException TimeoutError where no place is free in that time */
  async take(withinMs: number): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        one.gone = true;
        reject(new DOMException(`it had no turn within ${withinMs / 1000} s`, "TimeoutError"));
      }, withinMs);
      const go = () => {
        clearTimeout(timer);
        resolve();
      };
      const one = { go, gone: false };
      this.#waiting.push(one);
    });
  }

  give(): void {
    for (;;) {
      const next = this.#waiting.shift();
      if (!next) {
        this.#free += 1;
        return;
      }
      if (next.gone) continue;
      next.go();
      return;
    }
  }
}
