import type { GatewayConfig } from "./config.ts";

/** What a running gateway takes up from its configuration file; for the rest it has to be started again. */
const RELOADED = [
  "adminApi",
  "maxBodyBytes",
  "maxHeldBytes",
  "maxConnectionsPerAddress",
  "maxInFlightPerTenant",
  "trustedProxies",
  "shutdown",
  "logLevel",
] as const satisfies readonly (keyof GatewayConfig)[];

/** Puts into `current` what may change, in place: its readers look at each request. @returns the keys that take a restart */
export function takeUp(current: GatewayConfig, next: GatewayConfig): string[] {
  const { parking, sleeping } = current;
  for (const key of RELOADED) Object.assign(current, { [key]: next[key] });
  // Its readers have the object itself.
  Object.assign(parking, next.parking);
  Object.assign(sleeping, next.sleeping);
  const taken = new Set<string>([...RELOADED, "parking", "sleeping"]);
  const keys = Object.keys({ ...current, ...next }) as (keyof GatewayConfig)[];
  return keys.filter((key) => !taken.has(key) && JSON.stringify(current[key]) !== JSON.stringify(next[key]));
}
