import type { RolloutPolicy } from "../model/fleet.ts";

/**
 * Tenants in waves: the named canaries and `count` more, then `waveSize` each. Ordered by age, so that a tenant created in the middle of a rollout is
 * in its last wave and changes none before.
 */
export function wavesOf<T extends { name: string; createdAt: number }>(
  tenants: readonly T[],
  { canaries, waveSize }: Pick<RolloutPolicy, "canaries" | "waveSize">,
): T[][] {
  const named = new Set(canaries.names);
  const byAge = tenants.toSorted((a, b) => a.createdAt - b.createdAt || (a.name < b.name ? -1 : 1));
  const first = byAge.filter(({ name }) => named.has(name));
  const rest = byAge.filter(({ name }) => !named.has(name));
  const canaryWave = [...first, ...rest.splice(0, canaries.count)];
  const waves = canaryWave.length > 0 ? [canaryWave] : [];
  for (let at = 0; at < rest.length; at += waveSize) waves.push(rest.slice(at, at + waveSize));
  return waves;
}
