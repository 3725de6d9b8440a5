import type { IncomingMessage } from "node:http";
import { SERVER_WELL_KNOWN } from "../model/delegation.ts";
import type { Route } from "../model/routes.ts";
import type { KeptAnswer } from "./sleep/answer.ts";

/** Other servers keep it for that time; a changed address is theirs within an hour. */
const MAX_AGE_SECONDS = 3_600;
const HEAD = JSON.stringify([
  "content-type",
  "application/json",
  "access-control-allow-origin",
  "*",
  "cache-control",
  `public, max-age=${MAX_AGE_SECONDS}`,
]);

/**
 * What a request for `/.well-known/matrix/server` is told where its homeserver has no answer of its own: the tenant's public address. Synapse
 * knows none but port 443 of the server name.
 */
export function delegationAnswer(
  { method, url = "/" }: Pick<IncomingMessage, "method" | "url">,
  route: Route | undefined,
): KeptAnswer | undefined {
  if (route?.delegate === undefined || method !== "GET" || url.split("?", 1)[0] !== SERVER_WELL_KNOWN) return undefined;
  return { status: 200, head: HEAD, body: JSON.stringify({ "m.server": route.delegate }) };
}
