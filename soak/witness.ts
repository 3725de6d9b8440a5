import { setTimeout as sleep } from "node:timers/promises";
import { SynapsePeer } from "../bench/lib/synapse-peer.ts";
import { DEFAULT_RELEASE, ensureSynapse } from "../src/platforms/local/toolchain/toolchain.ts";

const NAME = "witness";
/** To each tenant: more rarely than those that nobody uses fall asleep. */
const SEND_EVERY_MS = 5_000;
/** A tenant that is being started may refuse for a moment. */
const JOIN_MS = 60_000;

/** A plain Synapse that shares a room with each tenant and sends there: whom it backs off from was away for others. */
export class Witness {
  readonly #peer: SynapsePeer;
  readonly #rooms = new Map<string, string>();
  #sending: { stop: AbortController; ended: Promise<void> } | undefined;

  private constructor(peer: SynapsePeer) {
    this.#peer = peer;
  }

  static async start(port: number, directory: string): Promise<Witness> {
    const { python } = await ensureSynapse(DEFAULT_RELEASE);
    return new Witness(await SynapsePeer.start({ python, name: NAME, port, directory }));
  }

  get user(): string {
    return this.#peer.user;
  }

  /** Joins a room of the tenant, to which it was invited. */
  async enter(tenant: string, room: string): Promise<void> {
    for (const deadline = Date.now() + JOIN_MS; ; await sleep(500)) {
      try {
        await this.#peer.join(room);
        break;
      } catch (error) {
        if (Date.now() > deadline) throw error;
      }
    }
    this.#rooms.set(tenant, room);
  }

  leave(tenant: string): void {
    this.#rooms.delete(tenant);
  }

  begin(): void {
    const stop = new AbortController();
    this.#sending ??= { stop, ended: this.#send(stop.signal) };
  }

  async pause(): Promise<void> {
    const { stop, ended } = this.#sending ?? {};
    this.#sending = undefined;
    stop?.abort();
    await ended;
  }

  /** Tenants that it found away since then. */
  foundAway(since: number): string[] {
    const found = this.#peer.backOffs().filter((backOff) => backOff.since >= since);
    return [...this.#rooms.keys()].filter((tenant) =>
      found.some(({ destination }) => destination?.startsWith(`${tenant}.`)),
    );
  }

  async close(): Promise<void> {
    await this.pause();
    await this.#peer.close();
  }

  async #send(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      for (const room of this.#rooms.values()) if (!signal.aborted) await this.#peer.send(room);
      await sleep(SEND_EVERY_MS, undefined, { signal }).catch(() => {});
    }
  }
}
