import { randomUUID } from "node:crypto";
import type { KeyPair, SharedCertificates } from "../../model/certificates.ts";

/** What gateways are told of certificates; a version counts up with each change. */
export class SharedBook {
  readonly #stream = randomUUID();
  readonly #pairs = new Map<string, { pair: KeyPair; version: number }>();
  readonly #waiting = new Set<() => void>();
  #thumbprint: string | null = null;
  #version = 0;

  set thumbprint(value: string) {
    if (this.#thumbprint === value) return;
    this.#thumbprint = value;
    this.#changed();
  }

  /** Makes these all there are. */
  replace(pairs: ReadonlyMap<string, KeyPair>): void {
    const gone = [...this.#pairs.keys()].filter((name) => !pairs.has(name));
    const news = [...pairs].filter(
      ([name, { certificate }]) => this.#pairs.get(name)?.pair.certificate !== certificate,
    );
    if (gone.length + news.length === 0) return;
    for (const name of gone) this.#pairs.delete(name);
    for (const [name, pair] of news) this.#pairs.set(name, { pair, version: this.#version + 1 });
    this.#changed();
  }

  /** What is new since a version of a stream; waits for up to `waitMs` where nothing is. */
  async since({ stream, version }: { stream?: string; version?: number }, waitMs: number): Promise<SharedCertificates> {
    const known = stream === this.#stream ? (version ?? -1) : -1;
    if (known >= this.#version) await this.#nextChange(waitMs);
    return {
      stream: this.#stream,
      version: this.#version,
      thumbprint: this.#thumbprint,
      names: [...this.#pairs.keys()],
      certificates: [...this.#pairs]
        .filter(([, { version: at }]) => at > known)
        .map(([name, { pair }]) => ({ name, certificate: pair.certificate, key: pair.key })),
    };
  }

  close(): void {
    for (const wake of this.#waiting) wake();
  }

  #changed(): void {
    this.#version += 1;
    this.close();
  }

  #nextChange(waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      this.#waiting.add(done);
    });
  }
}
