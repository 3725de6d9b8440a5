import { CoordinationV1Api, V1MicroTime, type KubeConfig, type V1Lease } from "@kubernetes/client-node";
import { isStatus, wordsOf } from "./api-error.ts";
import { apiClient } from "./client.ts";

/** Where a standby finds the leader's API. */
const ADDRESS_ANNOTATION = "synapse-shards.io/leader-address";

export interface ElectionTiming {
  /** A leader counts as gone this long after its last renewal was seen. */
  leaseMs: number;
  /** A leader that could not renew for this long leads no more; shorter than `leaseMs`, so that it stops before another begins. */
  renewWithinMs: number;
  retryMs: number;
}
/** As Kubernetes' own components have it. */
const DEFAULT_TIMING: ElectionTiming = { leaseMs: 15_000, renewWithinMs: 10_000, retryMs: 2_000 };

export interface LeaderElectionOptions {
  config: KubeConfig;
  namespace: string;
  /** Name of the Lease. */
  name: string;
  /** Unique to this process, e.g. its pod's name and a random part. */
  identity: string;
  /** URL of this process's API. */
  address: string;
  timing?: Partial<ElectionTiming>;
  /** Called once, when this process leads. */
  onStartedLeading: () => void;
  /** Called once, when it leads no longer; the process must not act any more, and is best ended. */
  onStoppedLeading: (why: string) => void;
  /** Called with the leader's API at each change; undefined while there is none. */
  onLeader?: (address: string | undefined) => void;
  onError?: (message: string) => void;
}

type Seen = { holder: string; version: string; at: number };

/**
 * One leader among processes, by a Lease (coordination.k8s.io). Whether a lease has run out is judged by this process's own monotonic clock from
 * when it saw the lease change, never by the times in it: clocks of machines differ.
 */
export class LeaderElection {
  readonly #options: LeaderElectionOptions;
  readonly #timing: ElectionTiming;
  readonly #api: CoordinationV1Api;
  #seen: Seen | undefined;
  #leading = false;
  #ended = false;
  /** Whether it ever tried to take the lease. */
  #asked = false;
  #leader: string | undefined;
  #wake: () => void = () => {};
  #loop: Promise<void> | undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(options: LeaderElectionOptions) {
    this.#options = options;
    this.#timing = { ...DEFAULT_TIMING, ...options.timing };
    // A request that hangs must not outlast what it is for: a standby would wait forever, and a leader could not renew by the next.
    this.#api = apiClient(options.config, CoordinationV1Api, {
      timeoutMs: this.#timing.renewWithinMs / 2,
      isUrgent: true,
    });
  }

  get leading(): boolean {
    return this.#leading;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Gives the leadership up, if it is ours, so that another takes it at once. */
  async stop(): Promise<void> {
    if (this.#ended) return this.#loop;
    this.#ended = true;
    this.#leading = false;
    clearTimeout(this.#deadline);
    this.#wake();
    await this.#loop;
    // Also where a request that was under way has just made it ours.
    if (this.#asked)
      await this.#release().catch((error: unknown) =>
        this.#options.onError?.(`cannot release the lease: ${wordsOf(error)}`),
      );
  }

  async #run(): Promise<void> {
    while (!this.#ended) {
      const askedAt = performance.now();
      try {
        const held = await this.#tryHold();
        if (this.#ended) return;
        // Counted from before the request: the server may have written it then.
        if (held) this.#held(askedAt);
        else if (this.#leading) return this.#lost("another process holds the lease");
      } catch (error) {
        this.#options.onError?.(`cannot ${this.#leading ? "renew" : "read"} the lease: ${wordsOf(error)}`);
      }
      await this.#pause(this.#timing.retryMs);
    }
  }

  #held(at: number): void {
    clearTimeout(this.#deadline);
    const left = Math.max(0, this.#timing.renewWithinMs - (performance.now() - at));
    // A timer of its own: a request that hangs must not keep a leader in office.
    this.#deadline = setTimeout(() => this.#lost("the lease could not be renewed in time"), left);
    this.#tellLeader(this.#options.address);
    if (this.#leading) return;
    this.#leading = true;
    this.#options.onStartedLeading();
  }

  #lost(why: string): void {
    if (!this.#leading) return;
    this.#leading = false;
    this.#ended = true;
    clearTimeout(this.#deadline);
    this.#tellLeader(undefined);
    this.#wake();
    this.#options.onStoppedLeading(why);
  }

  /** @returns whether the lease is ours now */
  async #tryHold(): Promise<boolean> {
    const { namespace, name, identity } = this.#options;
    let lease: V1Lease;
    try {
      lease = await this.#api.readNamespacedLease({ namespace, name });
    } catch (error) {
      if (!isStatus(error, 404)) throw error;
      return this.#write(() => this.#api.createNamespacedLease({ namespace, body: this.#lease(undefined) }));
    }
    const holder = lease.spec?.holderIdentity ?? "";
    const version = lease.metadata?.resourceVersion ?? "";
    if (this.#seen?.version !== version) this.#seen = { holder, version, at: performance.now() };
    const ours = holder === identity;
    if (!ours && holder !== "" && performance.now() - this.#seen.at < this.#timing.leaseMs) {
      this.#tellLeader(lease.metadata?.annotations?.[ADDRESS_ANNOTATION]);
      return false;
    }
    if (!ours) this.#tellLeader(undefined);
    return this.#write(() => this.#api.replaceNamespacedLease({ namespace, name, body: this.#lease(lease) }));
  }

  /** @returns false where somebody else was quicker */
  async #write(call: () => Promise<V1Lease>): Promise<boolean> {
    this.#asked = true;
    try {
      await call();
      return true;
    } catch (error) {
      if (isStatus(error, 409)) return false;
      throw error;
    }
  }

  #lease(present: V1Lease | undefined): V1Lease {
    const { namespace, name, identity, address } = this.#options;
    const now = new V1MicroTime();
    const ours = present?.spec?.holderIdentity === identity;
    return {
      metadata: {
        ...present?.metadata,
        name,
        namespace,
        annotations: { ...present?.metadata?.annotations, [ADDRESS_ANNOTATION]: address },
      },
      spec: {
        holderIdentity: identity,
        leaseDurationSeconds: Math.max(1, Math.ceil(this.#timing.leaseMs / 1000)),
        acquireTime: ours ? present?.spec?.acquireTime : now,
        renewTime: now,
        leaseTransitions: (present?.spec?.leaseTransitions ?? 0) + (present && !ours ? 1 : 0),
      },
    };
  }

  async #release(): Promise<void> {
    const { namespace, name, identity } = this.#options;
    const lease = await this.#api.readNamespacedLease({ namespace, name });
    if (lease.spec?.holderIdentity !== identity) return;
    await this.#write(() =>
      this.#api.replaceNamespacedLease({
        namespace,
        name,
        body: { ...lease, spec: { ...lease.spec, holderIdentity: "" } },
      }),
    );
  }

  #tellLeader(address: string | undefined): void {
    if (this.#leader === address) return;
    this.#leader = address;
    this.#options.onLeader?.(address);
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#ended) return resolve();
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      return undefined;
    });
  }
}
