import type { Bytes } from "./backups.ts";

/** Content on this machine's disk, for as long as somebody works with it. */
export interface Spooled {
  bytes: number;
  sha256: string;
  read(): Bytes;
  /** Removes it; idempotent. */
  drop(): Promise<void>;
}

/**
 * Holds what has to be known whole before it can be sent. What is left by a process that ended is removed when the next one begins.
 * What the machine cannot do, as where the disk is full, is thrown as it says it (`machineProblem`), and leaves nothing.
 */
export interface Spool {
  hold(content: Bytes): Promise<Spooled>;
}
