import { UserError } from "../../model/errors.ts";
import type { BackupManifest, BackupTargetConfig, Job, Verification } from "../../model/backup.ts";

export interface BackupEntry {
  backup: BackupManifest;
  /** Of the last time that it was tried. */
  verification?: Verification;
}

export interface RestoreRequest {
  /** The backup's id; default: the newest. */
  backup?: string;
  /** The moment; where only backups are kept, or the tenant is gone, or `from` is given, the newest backup from before it. */
  at?: string;
  /** Where the backup is; default: the cluster's own target. Paths are of the controller's machine. */
  from?: BackupTargetConfig;
  /** The name of the tenant that is made of it; only where there is no tenant of the backup's server name. Default: the same. */
  as?: string;
  /** The private key of the recipient: needed where the tenant, and with it its keys, is gone. Never written down. */
  identity?: string;
}

/** Which moments can be had besides those of backups. */
export interface PointInTimeState {
  /** For people. */
  place: string;
  keepDays: number;
  /** Oldest first; all within one can be had. */
  spans: { from: string; to: string }[];
  /** Everything that was committed until then is in the target; absent as long as that is not known. */
  until?: string;
  /** Segments of the log that wait for the target here. */
  waitingSegments: number;
  /** How far a copy of the server is that is being made. */
  baseUnderWay?: string;
  /** Copies of the server, oldest first. */
  bases: { id: string; finishedAt: string; bytes: number }[];
  problems: string[];
}

/** What the controller offers about backups. Everything it throws on account of the caller is a `UserError`. */
export interface BackupService {
  /**
   * Begins a backup. One that is under way for the tenant is joined.
   * @param options byTenantAdmin: few of these are kept, and they push out no others
   */
  backUp(tenant: string, options?: { byTenantAdmin?: boolean }): Promise<Job>;
  /** A tenant's backups, newest first. */
  list(tenant: string): Promise<BackupEntry[]>;
  /** The newest backup of each tenant in the catalogue, also of those that are gone, by name; and how many there are. */
  newest(): Promise<(BackupEntry & { count: number })[]>;
  /** Restores a backup into a scratch database, and reads all that belongs to it. Default: the newest. */
  verify(tenant: string, backup?: string): Promise<Job>;
  /** Brings a tenant back to what a backup has, or back from it. */
  restore(tenant: string, request: RestoreRequest): Promise<Job>;
  /** Takes the last restore back: the database that was there before is put into its place again. */
  undoRestore(tenant: string): Promise<Job>;
  /** Removes the database that the last restore put aside. */
  forgetRestore(tenant: string): Promise<void>;
  /** Which moments can be had besides those of backups. */
  pointInTime(): Promise<PointInTimeState>;
  jobs(): Job[];
  job(id: string): Job;
}

/** What is said of a job that is not there. */
export function noJob(id: string): UserError {
  return new UserError(
    "NotFound",
    `there is no job ${id}: a controller that was started again knows only backups that somebody asked for and that were not done; ask for it once more`,
  );
}
