/** The part of its requests in flight that a tenant keeps is halved and doubled. Fewer than this one, and it would not be usable. */
export const LEAST_PART = 1 / 32;
/** Below this part of its budget a tenant gets twice as much through: then it is still well within. */
const EASE_BELOW = 0.4;
/** Letting more through takes this many times as long as letting less through, so that it does not swing. */
const EASE_AFTER = 2;

/** Where a tenant stands with its budget. Milliseconds of the clock. */
export interface CpuStanding {
  /** Set while it is throttled: what it keeps, since when, and when that was last changed. */
  throttle?: { part: number; since: number; changedAt: number };
  /** Since when it is to have a shard of its own. */
  heavySince?: number;
}

export interface CpuSeen {
  /** Smoothed share of a core (src/model/load.ts), of what it wants (`wantedShare`). */
  share: number;
  /** The same of the database server's time, as a multiple of its budget there; all tenants of the server are neighbours. */
  database?: number;
  /** Whether anybody else is on its shard. */
  hasNeighbours: boolean;
  /** Since when its share has been low; undefined while it is not. */
  calmSince?: number;
}

export interface CpuLimits {
  /** Share of a core; 0: no budget. */
  budget: number;
  averageSeconds: number;
  isolateAfterSeconds: number;
  calmSeconds: number;
}

/** Of the time, that a shard leaves to a tenant that it holds back, whatever its neighbours do (multi_synapse/pace.py). */
const LEFT_AT_LEAST = 0.2;

/**
 * The share of a core to judge a tenant by: what it takes in the time in which its shard does not hold it back. One that wants little takes
 * little then, too; one that wants more is not thought calm because it was held back.
 * @param heldBack part of the time
 */
export function wantedShare(taken: number, heldBack = 0): number {
  return Math.min(1, taken / Math.max(1 - heldBack, LEFT_AT_LEAST));
}

/** Whether a share is so low that its tenant is no burden. */
export function isCalm(share: number, budget: number): boolean {
  return share < EASE_BELOW * budget;
}

/**
 * Where a tenant stands after another look. It is throttled step by step while it takes more than its budget, and let go step by step when
 * it takes less than EASE_BELOW of it. A step halves what it takes at the most, so one that goes down from above the budget does not
 * come to where it goes up again. A tenant that is still throttled after a while is *heavy*: the planner gives it a shard of its own.
 * Alone on a shard nobody is throttled for its processor time; it is heavy until it has been calm for long. One that takes the database
 * server's time is throttled wherever it is, as a shard of its own would not help anybody.
 */
export function nextStanding(now: number, before: CpuStanding, seen: CpuSeen, limits: CpuLimits): CpuStanding {
  if (limits.budget === 0) return {};
  const throttle = nextThrottle(now, before.throttle, seen, limits);
  const heavySince = nextHeavy(now, { ...before, throttle }, seen, limits);
  return { ...(throttle ? { throttle } : {}), ...(heavySince === undefined ? {} : { heavySince }) };
}

function nextThrottle(
  now: number,
  before: CpuStanding["throttle"],
  seen: CpuSeen,
  { budget, averageSeconds }: CpuLimits,
): CpuStanding["throttle"] {
  const settled = before === undefined ? Number.POSITIVE_INFINITY : (now - before.changedAt) / 1000;
  const part = before?.part ?? 1;
  const database = (seen.database ?? 0) * budget;
  // Alone on its shard it is throttled only for the database's sake, if it would take more there than it may.
  if (!seen.hasNeighbours && database / part <= budget) return undefined;
  const share = seen.hasNeighbours ? Math.max(seen.share, database) : database;
  if (share > budget && settled >= averageSeconds && part > LEAST_PART)
    return { part: part / 2, since: before?.since ?? now, changedAt: now };
  if (before && isCalm(share, budget) && settled >= EASE_AFTER * averageSeconds)
    return part >= 0.5 ? undefined : { ...before, part: part * 2, changedAt: now };
  return before;
}

function nextHeavy(
  now: number,
  { throttle, heavySince }: CpuStanding,
  { share, hasNeighbours, calmSince }: CpuSeen,
  { budget, isolateAfterSeconds, calmSeconds }: CpuLimits,
): number | undefined {
  if (isolateAfterSeconds === 0) return undefined;
  if (heavySince === undefined) {
    const isLong = throttle !== undefined && (now - throttle.since) / 1000 >= isolateAfterSeconds;
    // Not one that is throttled for the database's sake.
    const isOver = share / (throttle?.part ?? 1) > budget;
    // Who takes little by now is on the way back.
    return isLong && isOver && hasNeighbours && calmSince === undefined ? now : undefined;
  }
  const since = Math.max(heavySince, calmSince ?? Number.POSITIVE_INFINITY);
  return (now - since) / 1000 >= calmSeconds ? undefined : heavySince;
}
