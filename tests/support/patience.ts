/**
 * For how long tests wait for a condition before they give up. It says nothing of how fast things are, only that they come about: tests
 * share two cores with whatever else the machine does. `expect.poll` has the same limit (vitest.config.ts).
 */
export const PATIENCE_MS = 120_000;
