import type { Readable } from "node:stream";
import type { BaseManifest } from "../model/point-in-time.ts";
import type { Bytes } from "./backups.ts";
import type { DatabaseLogin } from "./databases.ts";

export type ServerIdentity = Pick<BaseManifest, "system" | "timeline" | "segmentBytes" | "postgresMajor">;

/** What makes a copy of a server, and what it is from there on. */
export type BaseFacts = Pick<BaseManifest, "start" | "end" | "databases">;

/**
 * The log of our own database server, received segment by segment into a place of ours, and copies of the server. What is wrong with the server
 * is a UserError.
 */
export interface ServerLog {
  identify(): Promise<ServerIdentity>;
  /**
   * Has the server keep what was not received yet, up to a bound. What is received without it ends.
   * @returns false where something may be missing since the last time, or it is the first; what was received of before is thrown away then
   */
  keep(mostBytes: number): Promise<boolean>;
  /** The server keeps nothing for us any more, and what was received is thrown away. */
  release(): Promise<void>;
  /** Receives until the signal, or until that fails. */
  receive(signal: AbortSignal): Promise<void>;
  /** Whole segments that were received, oldest first. */
  received(): Promise<string[]>;
  open(segment: string): Promise<Readable>;
  drop(segment: string): Promise<void>;
  /** Where the log ends, and a text that is another one after anything was committed. All of that is before this position. */
  position(): Promise<{ position: bigint; committed: string }>;
  /** Begins a segment, so that the one before can be received. @returns where that ends, or before that */
  endSegment(options?: {
    /** Something is committed before, so that no moment before this is behind the last that was committed. */
    commit?: boolean;
  }): Promise<bigint>;
  /** A copy of the whole server while it is in use, as a tar archive. @param consume its result is not taken where the copy breaks off */
  copy<T>(consume: (tar: Bytes) => Promise<T>, signal: AbortSignal): Promise<BaseFacts & { result: T }>;
}

export interface RecoverySource {
  base: BaseManifest;
  /** The base's archive, as `copy` gave it. */
  tar(): Bytes;
  /** @returns undefined where there is no such segment */
  segment(name: string): Promise<Bytes | undefined>;
}

/** A database server that is made of a copy and its log aside from our own, looked at, and thrown away. */
export interface Recoveries {
  /**
   * @param wanted at: the moment, in milliseconds
   * @param use gets a login as the tenant's role to the tenant's database of that moment
   * @throws UserError Unavailable where there is no space, InvalidInput where the log ends before that moment, NotFound where there was no such
   * database
   */
  recover<T>(
    source: RecoverySource,
    wanted: { at: number; tenant: string },
    use: (login: DatabaseLogin) => Promise<T>,
    work: { say(message: string): void; signal: AbortSignal },
  ): Promise<T>;
  /** Ends and removes what a process before this one left. */
  clean(): Promise<void>;
}

export interface PointInTimeMeans {
  log: ServerLog;
  recoveries: Recoveries;
}
