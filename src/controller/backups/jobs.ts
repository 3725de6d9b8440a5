import { randomUUID } from "node:crypto";
import { timeText, type Clock } from "../../model/clock.ts";
import type { Job, JobKind } from "../../model/backup.ts";
import { messageOf, UserError } from "../../model/errors.ts";

/** Dumps and restores take processor time from those that serve. */
const AT_ONCE = 2;
const HOUR_MS = 3_600_000;
/**
 * What ends a job that does not end: it has one of the two places, and it may be a tenant's own server that it waits for. Long enough for the largest
 * that there are; a restore waits for up to 12 hours until a tenant's own database is filled. What is stored by then is not stored again.
 */
const LONGEST_HOURS: Readonly<Record<JobKind, number>> = {
  Backup: 12,
  Verify: 6,
  Restore: 24,
  Import: 24,
  Inspect: 12,
};
/** Ended ones, for who asks what came of them. */
const KEPT = 1_000;

/** Asked for twice, they are done once: what they are asked for has no options. */
const JOINED: ReadonlySet<JobKind> = new Set(["Backup", "Verify"]);

export interface JobContext {
  job: Job;
  say(message: string): void;
  /** Ends it: the controller stops, or it takes too long. */
  signal: AbortSignal;
  /** Whether the controller stops, and the next one goes on. */
  isStopping(): boolean;
}

/** Long work, one at a time for each tenant, a few at once. */
export class Jobs {
  readonly #clock: Clock;
  readonly #onBug: (job: Job, error: unknown) => void;
  /** Why there is to be no work for a tenant now, in words. */
  readonly refusal: (tenant: string) => string | undefined;
  readonly #jobs = new Map<string, Job>();
  readonly #queue: { job: Job; run: () => Promise<void> }[] = [];
  readonly #running = new Map<string, Promise<void>>();
  readonly #stopping = new AbortController();

  /** @param refusal why there is to be no work for a tenant now, in words; asked when it is added, and again when it begins */
  constructor(
    clock: Clock,
    onBug: (job: Job, error: unknown) => void,
    refusal: (tenant: string) => string | undefined = () => undefined,
  ) {
    this.#clock = clock;
    this.#onBug = onBug;
    this.refusal = refusal;
  }

  /**
   * @param work its result is the job's last message
   * @param id of one with which an earlier controller did not come to an end @throws UserError Conflict
   */
  add(kind: JobKind, tenant: string, work: (context: JobContext) => Promise<string>, id: string = randomUUID()): Job {
    this.#refuse(tenant);
    const under = this.underWay(tenant);
    if (under?.kind === kind && JOINED.has(kind)) return under;
    if (under)
      throw new UserError(
        "Conflict",
        `tenant ${tenant} has a job already (${under.kind}: ${under.message}); try again after it`,
      );
    const requestedAt = timeText(this.#clock.now());
    const job: Job = { id, kind, tenant, state: "Waiting", message: "waits for its turn", requestedAt };
    this.#jobs.set(job.id, job);
    this.#queue.push({ job, run: () => this.#run(job, work) });
    this.#next();
    return job;
  }

  #refuse(tenant: string): void {
    const refusal = this.refusal(tenant);
    if (refusal !== undefined) throw new UserError("Conflict", refusal);
  }

  underWay(tenant: string): Job | undefined {
    return this.all().find((job) => job.tenant === tenant && job.finishedAt === undefined);
  }

  all(): Job[] {
    return [...this.#jobs.values()];
  }

  get(id: string): Job | undefined {
    return this.#jobs.get(id);
  }

  /** Ends what is under way; all of it can be asked for again. */
  async close(): Promise<void> {
    this.#stopping.abort();
    this.#queue.length = 0;
    await Promise.allSettled(this.#running.values());
  }

  #next(): void {
    while (this.#running.size < AT_ONCE && !this.#stopping.signal.aborted) {
      const next = this.#queue.shift();
      if (!next) return;
      const done = next.run().finally(() => {
        this.#running.delete(next.job.id);
        this.#next();
      });
      this.#running.set(next.job.id, done);
    }
  }

  async #run(job: Job, work: (context: JobContext) => Promise<string>): Promise<void> {
    Object.assign(job, { state: "Running", message: "begins" });
    const say = (message: string) => void (job.message = message);
    try {
      this.#refuse(job.tenant);
      const message = await this.#bounded(job.kind, (signal) =>
        work({ job, say, signal, isStopping: () => this.#stopping.signal.aborted }),
      );
      Object.assign(job, { state: "Succeeded", message });
    } catch (error) {
      if (!(error instanceof UserError) && !this.#stopping.signal.aborted) this.#onBug(job, error);
      Object.assign(job, { state: "Failed", message: messageOf(error) });
    }
    job.finishedAt = timeText(this.#clock.now());
    const ended = this.all().filter(({ finishedAt }) => finishedAt !== undefined);
    for (const { id } of ended.slice(0, Math.max(0, ended.length - KEPT))) this.#jobs.delete(id);
  }

  async #bounded<T>(kind: JobKind, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const hours = LONGEST_HOURS[kind];
    const late = new AbortController();
    const why = new UserError("Unavailable", `it took more than ${hours} hours, and was ended`);
    const cancel = this.#clock.after(hours * HOUR_MS, () => late.abort(why));
    try {
      return await work(AbortSignal.any([this.#stopping.signal, late.signal]));
    } catch (error) {
      // What it broke off at says less.
      throw late.signal.aborted ? why : error;
    } finally {
      cancel();
    }
  }
}
