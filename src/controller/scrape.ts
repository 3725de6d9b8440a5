import type { Gauge } from "prom-client";

/**
 * Fills the gauges of the store's content when somebody asks for them, and at no other time: once for all of them, and only
 * on the replica that leads. Before and after, they have no series: what a replica that stands by knows is old.
 */
export class Scrape {
  readonly #gauges: { gauge: Gauge; labelled: boolean }[] = [];
  #fill: (() => Promise<void>) | undefined;
  #running: Promise<void> | undefined;

  own(gauge: Gauge, labelNames: readonly string[]): void {
    this.#gauges.push({ gauge, labelled: labelNames.length > 0 });
    this.clear();
  }

  /** @param fill reads, then calls `clear` and sets the gauges in one turn of the loop, so that nobody sees half of it */
  begin(fill: () => Promise<void>): void {
    this.#fill = fill;
  }

  end(): void {
    this.#fill = undefined;
    this.clear();
  }

  /** What the gauges' `collect` calls, each of them. */
  refresh(): Promise<void> {
    return (this.#running ??= this.#refresh().finally(() => (this.#running = undefined)));
  }

  clear(): void {
    for (const { gauge, labelled } of this.#gauges) {
      gauge.reset();
      // Without labels, `reset` leaves a 0 that nobody has counted.
      if (!labelled) gauge.remove({});
    }
  }

  async #refresh(): Promise<void> {
    await this.#fill?.();
    // It may have ended meanwhile.
    if (!this.#fill) this.clear();
  }
}
