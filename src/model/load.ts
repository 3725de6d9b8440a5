/** What is known of how much of a core something takes. */
export interface Load {
  /** Milliseconds of the clock, and processor time since its process or tenant started, when it was last asked. */
  at: number;
  cpuSeconds: number;
  /** Exponentially weighted share of a core, 0 to about 1; undefined before the second look. */
  share?: number;
}

/**
 * The load after another look. The first share counts from nothing, so that neither a tenant's start nor a short burst passes for what it
 * takes for long.
 * @param averageSeconds after this time without work, a share is down to 37 %
 */
export function nextLoad(
  before: Load | undefined,
  { at, cpuSeconds }: Omit<Load, "share">,
  averageSeconds: number,
): Load {
  const seconds = before === undefined ? 0 : (at - before.at) / 1000;
  if (before === undefined || seconds <= 0) return { at, cpuSeconds };
  // The counter began again: what was used since the last look is not known.
  if (cpuSeconds < before.cpuSeconds) return { ...before, at, cpuSeconds };
  const present = (cpuSeconds - before.cpuSeconds) / seconds;
  const kept = Math.exp(-seconds / averageSeconds);
  return { at, cpuSeconds, share: kept * (before.share ?? 0) + (1 - kept) * present };
}
