/** Per tenant. */
export interface ParkBounds {
  maxRequests: number;
  /** Headers and bodies of the waiting requests, as far as they are in memory. */
  maxBytes: number;
}

export interface ParkTicket {
  readonly tenant: string;
  bytes: number;
  /** false while it is tried at an address; it keeps its place until it has been sent there. */
  waiting: boolean;
}

export interface ParkCounts {
  parked: number;
  failed: number;
}

export type ParkRefusal = "requests" | "bytes";

interface TenantQueue<T extends ParkTicket> {
  /** In the order of arrival. */
  tickets: Set<T>;
  bytes: number;
}

/**
 * Who waits for which tenant, first come first served, and how much. Pure: no clock, no requests. Tenants nobody waits for
 * take no memory, but for the counts of one that is parked.
 */
export class ParkQueue<T extends ParkTicket> {
  readonly #bounds: ParkBounds;
  readonly #queues = new Map<string, TenantQueue<T>>();
  readonly #episodes = new Map<string, ParkCounts>();

  constructor(bounds: ParkBounds) {
    this.#bounds = bounds;
  }

  /** Adds a ticket at the end, or says which bound it would break. A refused one counts as parked and failed. */
  enter(ticket: T): ParkRefusal | undefined {
    const queue = this.#queues.get(ticket.tenant) ?? { tickets: new Set<T>(), bytes: 0 };
    const counts = this.#episodes.get(ticket.tenant);
    if (counts) counts.parked += 1;
    const refusal =
      queue.tickets.size >= this.#bounds.maxRequests
        ? "requests"
        : queue.bytes + ticket.bytes > this.#bounds.maxBytes
          ? "bytes"
          : undefined;
    if (refusal) {
      if (counts) counts.failed += 1;
      return refusal;
    }
    queue.tickets.add(ticket);
    queue.bytes += ticket.bytes;
    this.#queues.set(ticket.tenant, queue);
    return undefined;
  }

  /** Frees the ticket's place at once. `failed`: its request was answered with an error. */
  leave(ticket: T, failed: boolean): void {
    const queue = this.#queues.get(ticket.tenant);
    if (!queue?.tickets.delete(ticket)) return;
    queue.bytes -= ticket.bytes;
    if (queue.tickets.size === 0) this.#queues.delete(ticket.tenant);
    const counts = this.#episodes.get(ticket.tenant);
    if (counts && failed) counts.failed += 1;
  }

  /** Those to be tried now, in order; each keeps its place until it leaves. */
  release(tenant: string): T[] {
    const released = [...(this.#queues.get(tenant)?.tickets ?? [])].filter((ticket) => ticket.waiting);
    for (const ticket of released) ticket.waiting = false;
    return released;
  }

  /** From here the tenant's counts are kept. Who waits already, because the old address refused it, waits for the same reason. */
  beginEpisode(tenant: string): void {
    if (!this.#episodes.has(tenant)) this.#episodes.set(tenant, { parked: this.size(tenant), failed: 0 });
  }

  endEpisode(tenant: string): ParkCounts | undefined {
    const counts = this.#episodes.get(tenant);
    this.#episodes.delete(tenant);
    return counts;
  }

  size(tenant: string): number {
    return this.#queues.get(tenant)?.tickets.size ?? 0;
  }

  bytes(tenant: string): number {
    return this.#queues.get(tenant)?.bytes ?? 0;
  }

  /** Tenants with waiting requests, and how many. */
  *sizes(): Generator<[tenant: string, size: number]> {
    for (const [tenant, queue] of this.#queues) yield [tenant, queue.tickets.size];
  }

  /** Of each tenant with waiting requests, the one that came first. */
  *first(): Generator<T> {
    for (const { tickets } of this.#queues.values()) {
      const [first] = tickets;
      if (first) yield first;
    }
  }
}
