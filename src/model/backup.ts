import { z } from "zod";
import { BucketSchema } from "./bucket.ts";
import type { OptionVerdict } from "./import.ts";
import { PointInTimeSchema } from "./point-in-time.ts";
import { nextTime, ScheduleSchema } from "./schedule.ts";

/** How many of what a homeserver has, at the moment of the database's snapshot: what a restored copy must have again. */
export const TenantCountsSchema = z.object({
  users: z.int().min(0),
  devices: z.int().min(0),
  rooms: z.int().min(0),
  events: z.int().min(0),
  media: z.int().min(0),
});
export type TenantCounts = z.infer<typeof TenantCountsSchema>;

const Stored = z.object({
  /** Where it is in the target. */
  key: z.string(),
  bytes: z.int().min(0),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});
export type Stored = z.infer<typeof Stored>;

/** A backup in the catalogue. It is written last, so what has one is complete. */
export const BackupManifestSchema = z.object({
  format: z.literal(1),
  /** Sorts by time. */
  id: z.string().regex(/^\d{8}T\d{6}\.\d{3}Z$/),
  /** What its data are named by: its name, unless it was renamed. */
  tenant: z.string(),
  /** Its name then, where that is another one. */
  name: z.string().optional(),
  /** A tenant admin asked for it: few of these are kept. */
  by: z.literal("tenant-admin").optional(),
  serverName: z.string(),
  /** The release whose schema the database has; empty where that is not known. */
  schemaRelease: z.string(),
  /** When the database's snapshot was taken: what came later is not in the backup. */
  takenAt: z.iso.datetime(),
  finishedAt: z.iso.datetime(),
  database: Stored.extend({ counts: TenantCountsSchema }),
  /** Configuration and keys, for the recipient alone. */
  sealed: Stored.extend({ recipient: z.string() }),
  /** The list of media files, each with the hash that is its name among the stored ones. */
  media: Stored.extend({
    files: z.int().min(0),
    totalBytes: z.int().min(0),
    newFiles: z.int().min(0),
    newBytes: z.int().min(0),
    /** Why there are none, or not all: the tenant's bucket could not be read, or it has none. Absent: all are there. */
    leftOut: z.string().optional(),
  }),
});
export type BackupManifest = z.infer<typeof BackupManifestSchema>;

/** What came of restoring a backup into a scratch database. */
export const VerificationSchema = z.object({
  verifiedAt: z.iso.datetime(),
  ok: z.boolean(),
  /** What is wrong, a sentence each. */
  problems: z.array(z.string()),
});
export type Verification = z.infer<typeof VerificationSchema>;

export interface BackupRetention {
  /** At least this many of a tenant's newest backups are kept. */
  keepLast: number;
  /** Older ones are kept for this time. */
  keepDays: number;
  /** Of those that tenant admins asked for, which are not among these, as many of the newest are kept. */
  keepOfTenantAdmins: number;
}

const retention = z.strictObject({
  keepLast: z.int().min(1).max(10_000).default(7),
  keepDays: z.number().min(0).max(36_500).default(30),
  keepOfTenantAdmins: z.int().min(1).max(1_000).default(3),
});
const absolutePath = z.string().regex(/^\//, "an absolute path such as /srv/backups");

/** Where backups go. */
export const BackupTargetSchema = z.union([
  z.strictObject({
    /** On this machine, or mounted there; not in the data directory, with which it would be lost. */
    directory: absolutePath,
  }),
  BucketSchema,
]);
export type BackupTargetConfig = z.infer<typeof BackupTargetSchema>;

export const BackupsConfigSchema = z.strictObject({
  target: BackupTargetSchema,
  /** Whose key opens configurations and keys in backups (`age-keygen` makes one). The private half is not needed to back up. */
  recipient: z.string().regex(/^age1[0-9a-z]{58,}$/, "a recipient of age such as age1…, as age-keygen prints it"),
  /** When all tenants are backed up, in UTC; without it only on request. */
  schedule: ScheduleSchema.optional(),
  retention: retention.prefault({}),
  /** Any moment, too, and not only those of backups; docs/point-in-time.md. */
  pointInTime: PointInTimeSchema.optional(),
  /** Of single tenants, where they differ. */
  tenants: z
    .record(
      z.string(),
      z.strictObject({ schedule: ScheduleSchema.nullable().optional(), retention: retention.optional() }),
    )
    .default({}),
});
export type BackupsConfig = z.infer<typeof BackupsConfigSchema>;

/** When a tenant is to be backed up next; undefined where only on request. @param since its last backup, or else its creation; milliseconds */
export function nextBackup(config: BackupsConfig, tenant: string, since: number): number | undefined {
  const own = config.tenants[tenant]?.schedule;
  const text = own === undefined ? config.schedule : (own ?? undefined);
  if (text === undefined) return undefined;
  return nextTime(text, since);
}

export function retentionFor(config: BackupsConfig, tenant: string): BackupRetention {
  return config.tenants[tenant]?.retention ?? config.retention;
}

/**
 * Which of a tenant's backups are to be removed: neither among the newest nor young enough. Those that a tenant admin asked for push out no others.
 * @param now milliseconds
 */
export function expired<B extends Pick<BackupManifest, "id" | "takenAt" | "by">>(
  backups: readonly B[],
  { keepLast, keepDays, keepOfTenantAdmins }: BackupRetention,
  now: number,
): B[] {
  const newestFirst = backups.toSorted((a, b) => (a.id < b.id ? 1 : -1));
  const theirs = newestFirst.filter(({ by }) => by !== undefined);
  const ours = newestFirst.filter(({ by }) => by === undefined);
  const isOld = ({ takenAt }: B) => now - Date.parse(takenAt) > keepDays * 86_400_000;
  return [...ours.slice(keepLast).filter(isOld), ...theirs.slice(keepOfTenantAdmins)];
}

/** The newest backup that has nothing of after `at`. @param at milliseconds; without it the newest of all */
export function backupAt<B extends Pick<BackupManifest, "id" | "takenAt">>(
  backups: readonly B[],
  at = Number.POSITIVE_INFINITY,
): B | undefined {
  const before = backups.filter(({ takenAt }) => Date.parse(takenAt) <= at);
  return before.toSorted((a, b) => (a.id < b.id ? 1 : -1))[0];
}

export function backupIdOf(time: number): string {
  return new Date(time).toISOString().replaceAll(/[-:]/g, "");
}

export const JOB_KINDS = ["Backup", "Verify", "Restore", "Import", "Inspect"] as const;
export type JobKind = (typeof JOB_KINDS)[number];

/**
 * Work that takes long. It is known to the controller's process alone: what a stop interrupts is asked for again, but for backups, with which the next
 * one goes on.
 */
export interface Job {
  id: string;
  kind: JobKind;
  tenant: string;
  state: "Waiting" | "Running" | "Succeeded" | "Failed";
  /** What it is at, or how it ended, in a sentence. */
  message: string;
  requestedAt: string;
  finishedAt?: string;
  /** The backup that it made, or worked with. */
  backup?: string;
  /** Of an import: what becomes of each option of its homeserver.yaml. */
  options?: OptionVerdict[];
}
