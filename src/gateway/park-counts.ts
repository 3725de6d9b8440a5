import type { RouteAck } from "../model/routes.ts";

export interface ParkCount {
  parked: number;
  failed: number;
}

interface Park extends ParkCount {
  /** Undefined while it lasts. */
  endedAt: number | undefined;
}

/**
 * What moves cost clients: how many requests waited in a tenant's park, and how many that were open at any moment of it ended with an error, however
 * late. Of each tenant, its last park is remembered.
 */
export class ParkCounts {
  readonly #parks = new Map<string, Park>();
  readonly #onLate: () => void;
  #due: RouteAck["parks"] = {};

  /** @param onLate a request has failed because of a park that has been reported: there is more to report */
  constructor(onLate: () => void = () => {}) {
    this.#onLate = onLate;
  }

  /** @param waiting those who wait already, because the old address refused them: for the same reason */
  begin(tenant: string, waiting: number): void {
    const park = this.#parks.get(tenant);
    if (park && park.endedAt === undefined) return;
    this.#parks.set(tenant, { parked: waiting, failed: 0, endedAt: undefined });
  }

  waits(tenant: string): void {
    const park = this.#parks.get(tenant);
    if (park && park.endedAt === undefined) park.parked += 1;
  }

  /** @param since when the request came */
  fails(tenant: string, since: number): void {
    const park = this.#parks.get(tenant);
    if (!park || (park.endedAt !== undefined && park.endedAt < since)) return;
    if (park.endedAt === undefined) {
      park.failed += 1;
      return;
    }
    this.#report(tenant, { parked: 0, failed: 1 });
    this.#onLate();
  }

  end(tenant: string, now: number): void {
    const park = this.#parks.get(tenant);
    if (!park || park.endedAt !== undefined) return;
    park.endedAt = now;
    this.#report(tenant, park);
  }

  forget(tenant: string): void {
    this.#parks.delete(tenant);
  }

  /** What is to be reported, once. */
  take(): RouteAck["parks"] {
    const due = this.#due;
    this.#due = {};
    return due;
  }

  #report(tenant: string, { parked, failed }: ParkCount): void {
    const sum = this.#due[tenant] ?? { parked: 0, failed: 0 };
    this.#due[tenant] = { parked: sum.parked + parked, failed: sum.failed + failed };
  }
}
