/**
 * What a homeserver may need an answer to before it can finish what it is at: other servers ask for its keys and events before they answer it
 * (docs/control-api.md, "What a draining tenant still answers").
 */
const READS =
  /^\/(?:_matrix\/key\/v2\/.*|\.well-known\/matrix\/server|_matrix\/federation\/v1\/(?:version|(?:event|event_auth|state|state_ids|backfill|query|user\/devices)\/.*|openid\/userinfo))$/;
const QUERIES = /^\/_matrix\/(?:key\/v2\/query|federation\/v1\/(?:get_missing_events\/.*|user\/keys\/query))$/;

/** Whether a tenant that is parked by a move still answers the request while its shard drains it. */
export function isAnsweredWhileDraining(method: string, target: string): boolean {
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  if (method === "GET") return READS.test(path);
  return method === "POST" && QUERIES.test(path);
}
