import { readFileSync } from "node:fs";
import { type Server, type Socket, isIPv6 } from "node:net";

/** Of the descriptors, each client's connection may need a second one to a homeserver; the rest is for files, logs and the feed. */
const DESCRIPTORS_PER_CLIENT = 2;
const OWN_DESCRIPTORS = 64;
/** Where the limit cannot be known. */
const ASSUMED_DESCRIPTORS = 1024;

export interface ConnectionBounds {
  /** Of all addresses. */
  max: number;
  /** As they are at present. */
  limits: { maxConnectionsPerAddress: number };
  /** Addresses that are not bounded: those of proxies, which speak for many. */
  isExempt(address: string): boolean;
  onRefused(bound: "address" | "total"): void;
}

/** The clients' connections of all servers: bounded, and known, so that a stop ends also those on which nothing was ever said. */
export class Connections {
  readonly #bounds: ConnectionBounds;
  readonly #open = new Set<Socket>();
  readonly #byAddress = new Map<string, number>();

  constructor(bounds: ConnectionBounds) {
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#open.size;
  }

  /** To be called for each server, TLS or not, before it listens. */
  watch(server: Server): void {
    // With TLS, these are the connections before the handshake; which many never get to.
    server.prependListener("connection", (socket: Socket) => this.#admit(socket));
  }

  destroyAll(): void {
    for (const socket of this.#open) socket.destroy();
  }

  #admit(socket: Socket): void {
    const { max, limits, isExempt, onRefused } = this.#bounds;
    const address = plainAddress(socket.remoteAddress);
    const key = networkOf(address);
    const count = (this.#byAddress.get(key) ?? 0) + 1;
    const isTooMany = count > limits.maxConnectionsPerAddress && !isExempt(address);
    const bound = this.#open.size >= max ? "total" : isTooMany ? "address" : undefined;
    if (bound) {
      onRefused(bound);
      // Without a word: an answer would cost what is to be saved.
      socket.destroy();
      return;
    }
    this.#open.add(socket);
    this.#byAddress.set(key, count);
    socket.once("close", () => {
      this.#open.delete(socket);
      const left = this.#byAddress.get(key)! - 1;
      if (left > 0) this.#byAddress.set(key, left);
      else this.#byAddress.delete(key);
    });
  }
}

/** IPv4 addresses as such, also where the socket is one of IPv6. */
export function plainAddress(address = "unknown"): string {
  return address.replace(/^::ffff:(?=\d+\.)/, "");
}

/** What one client has: with IPv6, a whole network of 64 bits. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = "", tail] = address.split("%", 1)[0]!.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  if (tail !== undefined) while (groups.length + after.length < 8) groups.push("0");
  return [...groups, ...after].slice(0, 4).join(":");
}

/** How many clients' connections the process has descriptors for: beyond them none would be left for homeservers and files. */
export function connectionsByDescriptors(limits = "/proc/self/limits"): number {
  return Math.max(16, Math.floor((descriptorLimit(limits) - OWN_DESCRIPTORS) / DESCRIPTORS_PER_CLIENT));
}

function descriptorLimit(path: string): number {
  try {
    const [, soft = ""] = /^Max open files\s+(\S+)/m.exec(readFileSync(path, "utf8")) ?? [];
    if (soft === "unlimited") return Number.POSITIVE_INFINITY;
    return Number(soft) || ASSUMED_DESCRIPTORS;
  } catch {
    return ASSUMED_DESCRIPTORS;
  }
}
