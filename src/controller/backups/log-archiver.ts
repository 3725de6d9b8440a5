import { setTimeout as sleep } from "node:timers/promises";
import { exponential } from "../../model/backoff.ts";
import { backupIdOf } from "../../model/backup.ts";
import { mebibytes } from "../../model/bytes.ts";
import { timeText } from "../../model/clock.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import {
  hasGap,
  nextBase,
  reachesOf,
  segmentEnd,
  spansOf,
  unneeded,
  type PointInTimeConfig,
  type Reach,
} from "../../model/point-in-time.ts";
import type { BackupTarget } from "../../ports/backups.ts";
import type { ServerIdentity, ServerLog } from "../../ports/point-in-time.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { PointInTimeState } from "../service/backup-service.ts";
import { LogArchive } from "./log-archive.ts";
import { Progress } from "./log-progress.ts";

const LOOK_EVERY_MS = 5_000;
/** What waits here waits on the same disk as what the server keeps, which has the bound. */
const MOST_RECEIVED = 4;
const FLUSH_WITHIN_MS = 120_000;
const FLUSH_POLL_MS = 200;
/** How far behind the target may be, beside what the configuration has it wait, before somebody is told. */
const LATE_MS = 180_000;
const retryBase = exponential(60_000, 3_600_000);

export interface ArchiverSettings {
  /** As it is now; undefined where no moment between backups is asked for. */
  config(): { config: PointInTimeConfig; target: BackupTarget } | undefined;
}

interface Receiving {
  identity: ServerIdentity;
  mostBytes: number;
  stop: AbortController;
  ended: Promise<void>;
}

/** Brings the database server's log into the backup target, and copies of the server from time to time. Never stops the server for it. */
export class LogArchiver {
  readonly #context: ControllerContext;
  readonly #settings: ArchiverSettings;
  readonly #log: ServerLog;
  readonly #stopping = new AbortController();
  #progress = new Progress();
  #receiving: Receiving | undefined;
  #isReleased = false;
  #mayHaveGap = false;
  #pass: Promise<void> | undefined;
  #base: Promise<void> | undefined;
  readonly #baseState: {
    isDue: boolean;
    failures: number;
    /** After a failure. */
    notBefore: number;
    /** When it is looked next whether the schedule has one due. */
    lookAt: number;
    at?: string;
    why?: string;
  } = { isDue: false, failures: 0, notBefore: 0, lookAt: 0 };
  #endedSegmentAt = 0;
  /** Why the last pass failed. */
  #why: string | undefined;
  /** Why receiving ended, until something is received again. */
  #whyNotReceived: string | undefined;
  #isLate = false;
  #cancel: () => void = () => {};

  constructor(context: ControllerContext, settings: ArchiverSettings, log: ServerLog) {
    this.#context = context;
    this.#settings = settings;
    this.#log = log;
  }

  start(): void {
    this.#again(0);
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    this.#cancel();
    this.#receiving?.stop.abort();
    await Promise.allSettled([this.#pass, this.#base, this.#receiving?.ended]);
  }

  problems(): string[] {
    if (!this.#settings.config()) return [];
    const { why } = this.#baseState;
    return [
      ...(this.#isLate
        ? [`the databases' log is in the backup target only until ${this.#untilText()}: ${this.#reason()}`]
        : []),
      ...(why === undefined ? [] : [`the last copy of the database server failed: ${why}`]),
    ];
  }

  /** Where everything before `until` is in the target. */
  async state(): Promise<PointInTimeState> {
    const { target, config } = this.#configured();
    const { bases, segments } = await new LogArchive(target).contents();
    const waiting = await this.#log.received();
    const state = { place: target.place, keepDays: config.keepDays, waitingSegments: waiting.length };
    const { until } = this.#progress;
    return {
      ...state,
      ...(until === undefined ? {} : { until: timeText(until) }),
      ...(this.#baseState.at === undefined ? {} : { baseUnderWay: this.#baseState.at }),
      problems: this.problems(),
      bases: bases.map(({ id, finishedAt, archive }) => ({ id, finishedAt, bytes: archive.bytes })),
      spans: spansOf(reachesOf(bases, segments, this.#live(until))).map(({ from, to }) => ({
        from: timeText(from),
        to: timeText(to),
      })),
    };
  }

  /** Where one can get to now, `flush` first for what is younger than the state says. */
  async reaches(): Promise<{ archive: LogArchive; reaches: Reach[] }> {
    const { target } = this.#configured();
    const archive = new LogArchive(target);
    const { bases, segments } = await archive.contents();
    return { archive, reaches: reachesOf(bases, segments, this.#live(this.#context.clock.wall())) };
  }

  /** Waits until all that was committed up to now, and something after it, is in the target. @throws UserError */
  async flush(signal: AbortSignal): Promise<void> {
    const end = await this.#log.endSegment({ commit: true });
    for (const deadline = this.#context.clock.now() + FLUSH_WITHIN_MS; this.#progress.shipped < end;) {
      if (this.#context.clock.now() > deadline)
        throw new UserError("Unavailable", `the databases' log does not get to the backup target: ${this.#reason()}`);
      await sleep(FLUSH_POLL_MS, undefined, { signal });
      await this.look();
    }
  }

  /** One pass; one that is under way is joined. Never fails. */
  look(): Promise<void> {
    return (this.#pass ??= this.#lookNow()
      .then(
        () => (this.#why = undefined),
        (error: unknown) => {
          if (this.#stopping.signal.aborted) return;
          this.#why = messageOf(error);
          this.#context.log.warn({ why: this.#why }, "the databases' log cannot be archived; tried again");
        },
      )
      .then(() => this.#tell())
      .finally(() => (this.#pass = undefined)));
  }

  #again(after: number): void {
    if (this.#stopping.signal.aborted) return;
    this.#cancel = this.#context.clock.after(after, () => void this.look().finally(() => this.#again(LOOK_EVERY_MS)));
  }

  async #lookNow(): Promise<void> {
    const now = this.#settings.config();
    if (!now) return this.#release();
    const { config, target } = now;
    const archive = new LogArchive(target);
    if (this.#receiving && this.#receiving.mostBytes !== bytesOf(config)) await this.#stopReceiving();
    const identity = this.#receiving?.identity ?? (await this.#keep(config));
    await this.#ship(archive, identity);
    if (!this.#receiving) this.#receive(identity, config);
    await this.#tellGap(archive, identity);
    await this.#endSegment(config);
    await this.#makeBaseIfDue(config, archive, identity);
  }

  async #release(): Promise<void> {
    if (this.#isReleased) return;
    await this.#stopReceiving();
    await this.#log.release();
    this.#progress = new Progress();
    this.#isReleased = true;
  }

  async #keep(config: PointInTimeConfig): Promise<ServerIdentity> {
    this.#isReleased = false;
    const identity = await this.#log.identify();
    if (!(await this.#log.keep(bytesOf(config)))) this.#mayHaveGap = this.#baseState.isDue = true;
    return identity;
  }

  /** The first time there is none. */
  async #tellGap(archive: LogArchive, { system }: ServerIdentity): Promise<void> {
    if (!this.#mayHaveGap) return;
    const { bases } = await archive.contents();
    this.#mayHaveGap = false;
    if (bases.some((base) => base.system === system)) await this.#sayGap();
  }

  #sayGap(): Promise<void> {
    return this.#say(
      "Warning",
      "BackupLogGap",
      "the databases' log has a gap, as the server had to give up what it kept for the backup target; a copy of the server is made, after which any moment can be had again",
    );
  }

  #receive(identity: ServerIdentity, config: PointInTimeConfig): void {
    const stop = new AbortController();
    const ended = this.#log
      .receive(stop.signal)
      .then(
        () => "it ended",
        (error: unknown) => messageOf(error),
      )
      .then((why) => {
        this.#receiving = undefined;
        if (!stop.signal.aborted) this.#whyNotReceived = `the server's log is not received: ${why}`;
      });
    this.#receiving = { identity, mostBytes: bytesOf(config), stop, ended };
  }

  async #stopReceiving(): Promise<void> {
    this.#receiving?.stop.abort();
    await this.#receiving?.ended;
  }

  async #ship(archive: LogArchive, { system, segmentBytes }: ServerIdentity): Promise<void> {
    const names = await this.#log.received();
    try {
      for (const name of names) {
        this.#stopping.signal.throwIfAborted();
        await archive.putSegment(system, name, await this.#log.open(name));
        await this.#log.drop(name);
        this.#progress.ship(segmentEnd(name, segmentBytes));
        this.#whyNotReceived = undefined;
      }
    } catch (error) {
      if ((await this.#log.received()).length > MOST_RECEIVED) await this.#stopReceiving();
      throw error;
    }
  }

  /** What was committed gets into the target in time, and a server that nobody writes to has no segments. */
  async #endSegment({ everySeconds }: PointInTimeConfig): Promise<void> {
    const now = this.#context.clock.wall();
    const { position, committed } = await this.#log.position();
    this.#progress.note(position, committed, now);
    if (!this.#progress.isBehind || now - this.#endedSegmentAt < everySeconds * 1_000) return;
    await this.#log.endSegment();
    this.#endedSegmentAt = now;
  }

  async #makeBaseIfDue(config: PointInTimeConfig, archive: LogArchive, identity: ServerIdentity): Promise<void> {
    const now = this.#context.clock.wall();
    const state = this.#baseState;
    if (this.#base || now < state.notBefore) return;
    if (!state.isDue) {
      if (now < state.lookAt) return;
      // Read seldom: the target may be far away.
      const { bases, segments } = await archive.contents();
      const own = bases
        .filter(({ system }) => system === identity.system)
        .map(({ finishedAt }) => Date.parse(finishedAt));
      const next = nextBase(config, own.length === 0 ? undefined : Math.max(...own));
      // A controller that ended before it had closed a gap leaves it to the next one.
      if (hasGap(bases, segments, identity.system)) {
        state.isDue = true;
        await this.#sayGap();
      } else if (next > now) {
        state.lookAt = Math.min(next, now + 600_000);
        return;
      }
    }
    this.#base = this.#makeBase(config, archive, identity).finally(() => (this.#base = undefined));
  }

  /** Never fails. */
  async #makeBase(config: PointInTimeConfig, archive: LogArchive, identity: ServerIdentity): Promise<void> {
    const { clock, log } = this.#context;
    const state = this.#baseState;
    const id = backupIdOf(clock.wall());
    state.at = "begins";
    try {
      const copy = await this.#log.copy(
        (tar) => archive.putTar(identity.system, id, tar, (bytes) => (state.at = `${mebibytes(bytes)} written`)),
        this.#stopping.signal,
      );
      const { result, ...facts } = copy;
      const finishedAt = timeText(clock.wall());
      await archive.addBase({ format: 1, id, ...identity, ...facts, finishedAt, archive: result });
      Object.assign(state, { isDue: false, failures: 0, notBefore: 0, lookAt: 0 });
      delete state.why;
      log.info({ id, bytes: result.bytes }, "a copy of the database server is in the backup target");
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      state.failures += 1;
      state.notBefore = clock.wall() + retryBase(state.failures);
      state.why = messageOf(error);
      await this.#say("Warning", "BackupBaseFailed", `the database server could not be copied: ${state.why}`);
      return;
    } finally {
      delete state.at;
    }
    await this.#prune(config, archive).catch((error: unknown) =>
      log.warn(
        { why: messageOf(error) },
        "what no moment needs any more cannot be removed; tried again after the next copy",
      ),
    );
  }

  async #prune({ keepDays }: PointInTimeConfig, archive: LogArchive): Promise<void> {
    const now = this.#context.clock.wall();
    const { bases, segments } = await archive.contents();
    const old = unneeded(bases, segments, keepDays, now);
    for (const base of old.bases) await archive.removeBase(base);
    for (const segment of old.segments) await archive.removeSegment(segment);
    await archive.removeLeftovers(bases, now);
  }

  async #tell(): Promise<void> {
    const now = this.#settings.config();
    const lag = now ? this.#lag() : 0;
    this.#context.metrics.archiveLag.set(lag / 1_000);
    const isLate = now !== undefined && lag > now.config.everySeconds * 1_000 + LATE_MS;
    if (isLate === this.#isLate) return;
    this.#isLate = isLate;
    if (isLate)
      await this.#say(
        "Warning",
        "BackupLogLate",
        `the databases' log is in the backup target only until ${this.#untilText()}: ${this.#reason()}`,
      );
    else if (now) await this.#say("Normal", "BackupLogCaughtUp", "the databases' log is in the backup target again");
  }

  /** Milliseconds. */
  #lag(): number {
    const { until = this.#progress.since } = this.#progress;
    return until === undefined ? 0 : Math.max(0, this.#context.clock.wall() - until);
  }

  #untilText(): string {
    const { until } = this.#progress;
    return until === undefined ? "before the controller was started" : timeText(until);
  }

  #reason(): string {
    return this.#why ?? this.#whyNotReceived ?? "the target takes it too slowly";
  }

  #live(until: number | undefined): { system: string; until: number } | undefined {
    const system = this.#receiving?.identity.system;
    return system === undefined || until === undefined ? undefined : { system, until };
  }

  #configured(): { config: PointInTimeConfig; target: BackupTarget } {
    const found = this.#settings.config();
    if (found) return found;
    throw new UserError(
      "Conflict",
      "no moments between backups are kept: set `backups.pointInTime` (docs/point-in-time.md)",
    );
  }

  #say(type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type, reason, object: "Cluster/databases", message });
  }
}

function bytesOf({ maxWaitingMiB }: PointInTimeConfig): number {
  return maxWaitingMiB * 1024 ** 2;
}
