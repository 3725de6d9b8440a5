import type { BackupEntry } from "../../controller/service/backup-service.ts";
import type { Job } from "../../model/backup.ts";
import { UserError } from "../../model/errors.ts";

const MINUTE_MS = 60_000;
const BETWEEN_BACKUPS_MS = 3_600_000;

/** What makes others wait, or tells of what is around the cluster, is a tenant admin's only so often. */
export class CallsPerMinute {
  readonly #most: number;
  readonly #what: string;
  readonly #now: () => number;
  readonly #calls = new Map<string, number[]>();

  /** @param what in words, after a number */
  constructor(most: number, what: string, now: () => number = () => performance.now()) {
    this.#most = most;
    this.#what = what;
    this.#now = now;
  }

  /** @throws UserError RateLimited */
  count(actor: string): void {
    const now = this.#now();
    const isRecent = (at: number) => now - at < MINUTE_MS;
    for (const [name, calls] of this.#calls) if (!calls.some(isRecent)) this.#calls.delete(name);
    const calls = (this.#calls.get(actor) ?? []).filter(isRecent);
    if (calls.length >= this.#most)
      throw new UserError("RateLimited", `a tenant admin has ${this.#most} ${this.#what} a minute: wait a minute`);
    this.#calls.set(actor, [...calls, now]);
  }
}

/**
 * A backup is a whole dump, which is kept, and takes one of a few turns from everybody.
 * @param jobs of the tenant @throws UserError RateLimited; not while one is under way, which is joined
 */
export function refuseSoonAgain(
  name: string,
  { jobs, entries, now }: { jobs: readonly Job[]; entries: readonly BackupEntry[]; now: number },
): void {
  const made = jobs.filter(({ kind, tenant }) => kind === "Backup" && tenant === name);
  if (made.some(({ finishedAt }) => finishedAt === undefined)) return;
  const times = [...made.map(({ requestedAt }) => requestedAt), ...entries.map(({ backup }) => backup.takenAt)];
  const last = Math.max(...times.map((time) => Date.parse(time)), Number.NEGATIVE_INFINITY);
  if (now - last >= BETWEEN_BACKUPS_MS) return;
  const again = new Date(last + BETWEEN_BACKUPS_MS).toISOString();
  throw new UserError(
    "RateLimited",
    `a backup of ${name} was begun at ${new Date(last).toISOString()}; a tenant admin begins one an hour: again from ${again}`,
  );
}
