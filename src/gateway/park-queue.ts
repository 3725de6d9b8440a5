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

export type ParkRefusal = "requests" | "bytes";

interface TenantQueue<T extends ParkTicket> {
  /** In the order of arrival. */
  tickets: Set<T>;
  bytes: number;
}

/** Who waits for which tenant, first come first served, and how much. Pure: no clock, no requests. Tenants nobody waits for take no memory. */
export class ParkQueue<T extends ParkTicket> {
  readonly #bounds: ParkBounds;
  readonly #queues = new Map<string, TenantQueue<T>>();

  constructor(bounds: ParkBounds) {
    this.#bounds = bounds;
  }

  /** Adds a ticket at the end, or says which bound it would break. */
  enter(ticket: T): ParkRefusal | undefined {
    const queue = this.#queues.get(ticket.tenant) ?? { tickets: new Set<T>(), bytes: 0 };
    if (queue.tickets.size >= this.#bounds.maxRequests) return "requests";
    if (queue.bytes + ticket.bytes > this.#bounds.maxBytes) return "bytes";
    queue.tickets.add(ticket);
    queue.bytes += ticket.bytes;
    this.#queues.set(ticket.tenant, queue);
    return undefined;
  }

  /** Frees the ticket's place at once. */
  leave(ticket: T): void {
    const queue = this.#queues.get(ticket.tenant);
    if (!queue?.tickets.delete(ticket)) return;
    queue.bytes -= ticket.bytes;
    if (queue.tickets.size === 0) this.#queues.delete(ticket.tenant);
  }

  /** Those to be tried now, in order; each keeps its place until it leaves. */
  release(tenant: string): T[] {
    const released = [...(this.#queues.get(tenant)?.tickets ?? [])].filter((ticket) => ticket.waiting);
    for (const ticket of released) ticket.waiting = false;
    return released;
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
