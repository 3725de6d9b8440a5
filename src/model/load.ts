/** What is known of how much of a core something takes. */
export interface Load extends Look {
  /** Exponentially weighted share of a core, 0 to about 1; undefined before the second look. */
  share?: number;
}

export interface Look {
  /** Milliseconds of the clock. */
  at: number;
  /** Processor time since its process or tenant started. */
  cpuSeconds: number;
  /** For how long its process was ready to run, and the machine, or the limit of its container, did not let it. */
  starvedSeconds: number;
}

/** However little of a core a process is given, what it does with it says something of what its tenants take. */
const LEAST_GIVEN = 0.05;

/**
 * The load after another look. A share is of the time that the process could have run: where it is given half a core, a tenant that takes a
 * quarter of one leaves its neighbours a half. The first share counts from nothing, so that neither a tenant's start nor a short burst passes for
 * what it takes for long.
 * @param averageSeconds after this time without work, a share is down to 37 %
 */
export function nextLoad(before: Load | undefined, look: Look, averageSeconds: number): Load {
  const seconds = before === undefined ? 0 : (look.at - before.at) / 1000;
  if (before === undefined || seconds <= 0) return look;
  const cpu = look.cpuSeconds - before.cpuSeconds;
  const starved = look.starvedSeconds - before.starvedSeconds;
  // A counter began again: what was used since the last look is not known.
  if (cpu < 0 || starved < 0) return { ...before, ...look };
  const given = Math.max(seconds - starved, seconds * LEAST_GIVEN);
  const kept = Math.exp(-seconds / averageSeconds);
  return { ...look, share: kept * (before.share ?? 0) + (1 - kept) * (cpu / given) };
}
