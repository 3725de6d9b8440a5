import { nextBackup, type BackupsConfig } from "../../model/backup.ts";
import { timeText } from "../../model/clock.ts";
import { storageOf } from "../../model/storage-name.ts";
import type { Tenant } from "../../model/tenant.ts";
import { exponential } from "../../model/backoff.ts";

const RETRY_FIRST_MS = 5 * 60_000;
const RETRY_MOST_MS = 2 * 3_600_000;
const retryAfter = exponential(RETRY_FIRST_MS, RETRY_MOST_MS);

/** A target that is away for a moment misses nothing. */
const MISSED_AFTER_MS = 30 * 60_000;

/** Whether backups are missed, as it cannot be seen which are due. */
export class Missed {
  #since: number | undefined;
  #isTold = false;
  #why = "";

  /** @returns the sentence for people, once @param now milliseconds */
  failed(why: string, now: number): string | undefined {
    this.#since ??= now;
    this.#why = why;
    if (this.#isTold || now - this.#since < MISSED_AFTER_MS) return undefined;
    this.#isTold = true;
    return this.problem();
  }

  /** @returns whether people were told of it */
  over(): boolean {
    const wasTold = this.#isTold;
    this.#since = undefined;
    this.#isTold = false;
    return wasTold;
  }

  problem(): string | undefined {
    if (!this.#isTold || this.#since === undefined) return undefined;
    return `no backup of the schedule can be made since ${timeText(this.#since)}: ${this.#why}`;
  }
}

interface Known {
  /** When the last complete backup was taken. */
  last?: number;
  failures: number;
  notBefore?: number;
  why?: string;
}

/**
 * Which tenants are to be backed up now. What was missed, while the controller was away or the target was, is made up for once. Known by what tenants'
 * data are named by (`storageOf`), as backups are.
 */
export class BackupSchedule {
  readonly #known = new Map<string, Known>();

  /** @param last when its newest backup was taken, as the catalogue says; milliseconds */
  learn(storage: string, last: number | undefined): void {
    this.#known.set(storage, { failures: 0, ...(last === undefined ? {} : { last }) });
  }

  knows(storage: string): boolean {
    return this.#known.has(storage);
  }

  /** A backup outside the schedule was made: earlier failures are forgotten, and the next one is due as before. */
  succeeded(storage: string): void {
    if (this.#known.has(storage)) this.learn(storage, this.#known.get(storage)?.last);
  }

  failed(storage: string, why: string, now: number): void {
    const { last, failures = 0 } = this.#known.get(storage) ?? {};
    const notBefore = now + retryAfter(failures + 1);
    this.#known.set(storage, { failures: failures + 1, notBefore, why, ...(last === undefined ? {} : { last }) });
  }

  /** @param now as the machine's clock has it */
  isDue({ metadata, status }: Tenant, config: BackupsConfig, now: number): boolean {
    const { last, notBefore = 0 } = this.#known.get(storageOf({ metadata, status })) ?? {};
    const next = nextBackup(config, metadata.name, last ?? Date.parse(metadata.creationTimestamp));
    return next !== undefined && next <= now && notBefore <= now;
  }

  /** What people should know, a sentence each. @param nameOf the tenant whose data are named so, if there is one */
  problems(nameOf: (storage: string) => string | undefined): string[] {
    return [...this.#known].flatMap(([storage, { why }]) => {
      const tenant = nameOf(storage);
      return why === undefined || tenant === undefined ? [] : [`the last backup of tenant ${tenant} failed: ${why}`];
    });
  }
}
