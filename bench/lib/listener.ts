/** By `host:port` of a listener; in this process, and in those that it starts. */
const VARIABLE = "BENCH_LISTENER_SECRETS";

/** A tenant's listener answers gateways alone: what is measured past the gateway has to say the shard's secret. */
export function learnSecret(address: string, secret: string | undefined): void {
  if (secret !== undefined) process.env[VARIABLE] = JSON.stringify({ ...known(), [address]: secret });
}

/** @param url of anything; other servers than tenants' listeners get nothing */
export function listenerHeaders(url: string): Record<string, string> {
  const secret = secretOf(new URL(url).host);
  return secret === undefined ? {} : { "x-synapse-shards-secret": secret };
}

/** For a gateway's routes. @param address `host:port` of a tenant's listener */
export function secretOf(address: string): string | undefined {
  return known()[address];
}

function known(): Record<string, string> {
  return JSON.parse(process.env[VARIABLE] ?? "{}") as Record<string, string>;
}
