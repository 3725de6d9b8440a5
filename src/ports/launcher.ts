import type { ShardControl } from "./shard-control.ts";

/** What a Synapse release says of itself; decides which databases it can read. */
export interface ReleaseFacts {
  release: string;
  /** The schema this release brings a database to. */
  schemaVersion: number;
  /** A database of this release can be read by releases whose schemaVersion is at least this. */
  schemaCompatVersion: number;
}

/** What keeps a process from coming up, in one sentence. */
export interface StartProblem {
  /** `Crashed`: the process itself ends; the others are about getting it to run at all. */
  reason: "Crashed" | "ImageUnavailable" | "Unschedulable" | "ContainerFailed" | "PodRefused";
  message: string;
}

export type ProcessState =
  /** There is no process. */
  | { state: "absent" }
  /**
   * There is a process, or soon will be, and it has no address yet; the message says what it waits for, if that is known.
   * With a `problem`, waiting alone will not help, though the platform goes on trying.
   */
  | { state: "starting"; message?: string; problem?: StartProblem }
  | { state: "running"; address: string };

/**
 * Runs shards. The contract, which every adapter passes (tests/ports/launcher-contract.ts):
 * - A shard's process outlives the controller, and is found again by `observe` of the next one.
 * - There is never more than one process of a shard; `start` of a running shard does nothing.
 * - A process that ended is not started again by the launcher of its own accord unless the platform does so (Kubernetes).
 */
export interface Launcher {
  /**
   * Whether such a release can be had, within seconds: nothing is installed. Passes where that cannot be told beforehand.
   * @returns what the release says of itself, where it is installed already
   * @throws UserError UnknownRelease, which names the nearest that there are; UnsupportedRelease
   */
  checkRelease(release: string): Promise<ReleaseFacts | undefined>;
  /**
   * Makes a release ready to run; installs it if need be. Idempotent, may take a minute.
   * @returns what the release says of itself; undefined where only a running shard can say it (`ShardState.facts`)
   * @throws UserError UnknownRelease, UnsupportedRelease, Environment
   */
  prepareRelease(release: string, onProgress: (step: string) => void): Promise<ReleaseFacts | undefined>;
  start(shard: string, release: string): Promise<void>;
  observe(shard: string): Promise<ProcessState>;
  /**
   * Tells at once of a shard whose process, started by this launcher, has ended; `observe` says what is there then. Not where the
   * platform starts it again of its own accord.
   * @returns what ends it
   */
  onEnded?(listener: (shard: string) => void): () => void;
  /** Asks it to drain and stop its tenants and to end; kills it after `graceSeconds`. It forgets nothing. */
  stop(shard: string, graceSeconds: number): Promise<void>;
  /** Ends it now. Where the platform starts processes again (Kubernetes), another one follows; a process that is not there yet is left alone. */
  kill(shard: string): Promise<void>;
  /** Removes everything of a stopped shard. */
  remove(shard: string): Promise<void>;
  /** A client of the control API of the process that `observe` showed. */
  client(shard: string, address: string): Promise<ShardControl>;
  /** Lines of its log, oldest first. */
  log(shard: string, options: { tail?: number; follow?: boolean; signal?: AbortSignal }): AsyncIterable<string>;
}
