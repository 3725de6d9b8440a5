import { storageOf } from "../../model/storage-name.ts";
import { backupAt, type TenantCounts } from "../../model/backup.ts";
import { mebibytes } from "../../model/bytes.ts";
import { timeText } from "../../model/clock.ts";
import { UserError } from "../../model/errors.ts";
import { reachFor, spansOf, type Reach } from "../../model/point-in-time.ts";
import { wantedRelease, type Tenant } from "../../model/tenant.ts";
import type { Bytes, CopyFacts, DatabaseCopies } from "../../ports/backups.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import type { PointInTimeMeans } from "../../ports/point-in-time.ts";
import { asItRuns } from "../start/configs.ts";
import type { Work } from "./back-up.ts";
import { Catalogue } from "./catalogue.ts";
import type { LogArchive } from "./log-archive.ts";
import type { LogArchiver } from "./log-archiver.ts";
import { stageMedia } from "./media-copies.ts";
import { refuseNewerSchema, refuseUnlike } from "../start/copy-checks.ts";
import { exchangeNow, type Restore, type RestoreParts } from "./restore.ts";

export interface PointInTimeParts extends RestoreParts {
  archiver: LogArchiver;
  recoveries: PointInTimeMeans["recoveries"];
}

/** @param at milliseconds @throws UserError InvalidInput that says which moments there are */
export async function reachOf(
  archiver: LogArchiver,
  at: number,
  now: number,
): Promise<{ archive: LogArchive; reach: Reach }> {
  const { archive, reaches } = await archiver.reaches();
  const reach = at <= now ? reachFor(reaches, at) : undefined;
  if (reach) return { archive, reach };
  const spans = spansOf(reaches).map(({ from, to }) => `from ${timeText(from)} to ${timeText(Math.min(to, now))}`);
  const allowed =
    spans.length === 0
      ? "as yet there are none, as the first copy of the server is not made"
      : `there are those ${spans.join(", and ")}`;
  throw new UserError(
    "InvalidInput",
    `the moment ${timeText(at)} cannot be had: ${allowed}. A backup has an earlier one: tenant backups lists them, and --backup names one`,
  );
}

/** The server may have had another tenant's database of that name then. @throws UserError InvalidInput */
export function refuseEarlierTenant({ metadata, status }: Pick<Tenant, "metadata" | "status">, at: number): void {
  const since = status.dataSince ?? metadata.creationTimestamp;
  if (at >= Date.parse(since)) return;
  const { name } = metadata;
  throw new UserError(
    "InvalidInput",
    `tenant ${name} is there since ${since}, and what had its name at ${timeText(at)} may have been another one: choose a later moment, ` +
      `or restore a backup (--backup); tenant inspect ${name} --at shows what was there`,
  );
}

/**
 * Brings an existing tenant back to a moment. The database server of that moment is made aside, and the tenant's database taken out of it; then it
 * goes on like every restore. Interrupted before the exchange, nothing has happened to the tenant.
 */
export async function restoreToTime(parts: PointInTimeParts, tenant: Tenant, at: number, work: Work): Promise<string> {
  const { context, means } = parts;
  const { name } = tenant.metadata;
  const storage = storageOf(tenant);
  const runs = await asItRuns(context, tenant);
  if (!runs)
    throw new UserError("Conflict", `the keys of tenant ${name} are missing: restore a backup with --identity`);
  const time = timeText(at);
  const options = { password: runs.secrets.databasePassword, backup: time };
  const takeOut = async (dump: Bytes, { counts }: CopyFacts) => {
    work.say("the tenant's database is taken out");
    const found = await means.copies.restoreBeside(storage, options, dump, work.signal);
    refuseUnlike(`the database of ${time}`, counts, found);
    refuseNewerSchema(context, wantedRelease(tenant), found);
  };
  await fromMoment(parts, storage, at, work, (login) =>
    means.copies.dumpOf(login, takeOut, work.signal, { withFence: true }),
  );
  // Media that were removed since; those that are there stay.
  const newest = backupAt(await new Catalogue(means.target).all(storage));
  if (newest) await stageMedia(means, newest, storage, work);
  return exchangeNow(parts, name, { backup: time, words: `its state of ${time}` }, work);
}

/** Has a tenant's database of a moment looked at. */
export async function fromMoment<T>(
  { archiver, recoveries, context }: Pick<PointInTimeParts, "archiver" | "recoveries" | "context">,
  storage: string,
  at: number,
  work: Work,
  use: (login: DatabaseLogin) => Promise<T>,
): Promise<T> {
  work.say("the end of the log is brought into the target");
  await archiver.flush(work.signal);
  const { archive, reach } = await reachOf(archiver, at, context.clock.wall());
  const { base } = reach;
  const source = {
    base,
    tar: () =>
      archive.tar(base, (bytes) =>
        work.say(`the copy of ${base.finishedAt}: ${mebibytes(bytes)} of ${mebibytes(base.archive.bytes)} read`),
      ),
    segment: (segment: string) => archive.segment(base.system, segment),
  };
  return recoveries.recover(source, { at, tenant: storage }, use, work);
}

/** As `readBackup`, of a moment. */
export function readMoment<T>(
  { copies, ...parts }: Pick<PointInTimeParts, "archiver" | "recoveries" | "context"> & { copies: DatabaseCopies },
  storage: string,
  at: number,
  work: Work,
  use: (counts: TenantCounts, restore: Restore) => Promise<T>,
): Promise<T> {
  return fromMoment(parts, storage, at, work, (login) =>
    copies.dumpOf(
      login,
      (dump, { counts }) => use(counts, (into) => copies.restore(into, dump, work.signal)),
      work.signal,
    ),
  );
}
