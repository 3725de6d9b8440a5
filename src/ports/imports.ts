import type { Readable } from "node:stream";
import type { TenantCounts } from "../model/backup.ts";
import type { MediaPlace } from "../model/import.ts";
import type { Bytes, MediaFile } from "./backups.ts";
import type { DatabaseLogin } from "./databases.ts";
import type { Assignment } from "./shard-control.ts";

/** What a review of homeserver.yaml says (multi_synapse/review.py). */
export interface ConfigReview {
  /** What is left of it: the tenant's part. */
  config: string;
  taken: string[];
  refused: { option: string; why: string; owner: string }[];
  warnings: string[];
  /** Why Synapse itself does not take it. */
  problem: string | null;
}

/** A copy of a SQLite database, which may be changed. */
export interface SqliteCopy {
  counts: TenantCounts;
  bytes: number;
  /**
   * Brings everything in it into an empty database, by Synapse's own synapse_port_db of a release.
   * @throws UserError InvalidInput with what it said
   */
  port(into: DatabaseLogin, options: { release: string; serverName: string }, work: PortWork): Promise<void>;
  drop(): Promise<void>;
}

export interface PortWork {
  say(message: string): void;
  signal: AbortSignal;
}

/**
 * What there is of a homeserver that is to be imported, on the machine of the controller. Nothing of it is ever changed. What is not there, or
 * cannot be read, is a UserError InvalidInput that names it.
 */
export interface ImportSource {
  /** A small file. Paths that are not absolute are below `directory`. */
  text(path: string, directory: string): Promise<string>;
  /** Small files of a directory by their paths below it, at most two deep. */
  texts(path: string, directory: string): Promise<Map<string, string>>;
  /** @param release whose table of options judges, and whose Synapse reads it */
  review(release: string, assignment: Assignment): Promise<ConfigReview>;
  /** A copy as of one moment, whoever writes to it. */
  copySqlite(path: string, work: PortWork): Promise<SqliteCopy>;
  /** Who has a file open, as a sentence's subject; undefined where nobody has, or that cannot be told. */
  userOf(path: string): Promise<string | undefined>;
  dump(path: string): Promise<{ content: Bytes; bytes: number }>;
  /** Originals below a media directory, or in a bucket: no thumbnails, no previews of URLs. */
  media(place: MediaPlace): AsyncIterable<MediaFile>;
  openMedia(place: MediaPlace, path: string): Promise<Readable>;
  /** Whether it is a directory; of a bucket it is seen when it is read. */
  mayHaveMedia(place: MediaPlace): Promise<boolean>;
}
