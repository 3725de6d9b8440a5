import { setTimeout as sleep } from "node:timers/promises";

/**
 * For how long tests wait for a condition before they give up. It says nothing of how fast things are, only that they come about: tests
 * share two cores with whatever else the machine does. `expect.poll` has the same limit (vitest.config.ts).
 */
export const PATIENCE_MS = 120_000;

/** Looks less often the longer it takes: at most a tenth of the time is lost between two looks. */
const PAUSE_MS = { shortest: 2, longest: 200 };

/**
 * Waits until `check` gives something; after an error it is called again.
 * @param saw what the error says of the state that was found; otherwise what `check` said last
 * @throws Error naming `what`
 */
export async function until<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
  seconds: number = PATIENCE_MS / 1000,
  saw?: () => string,
): Promise<T> {
  const startedAt = performance.now();
  for (let last: unknown = "nothing"; ;) {
    try {
      const value = await check();
      if (value !== undefined && value !== false) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    const elapsed = performance.now() - startedAt;
    if (elapsed > seconds * 1000)
      throw new Error(`did not come about in ${seconds} s: ${what}; last: ${saw?.() ?? String(last)}`, { cause: last });
    await sleep(Math.min(Math.max(elapsed / 10, PAUSE_MS.shortest), PAUSE_MS.longest));
  }
}
