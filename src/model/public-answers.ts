import { CLIENT_WELL_KNOWN, SERVER_WELL_KNOWN } from "./delegation.ts";
import { isMapping } from "./mapping.ts";
import type { LastWords, PublicAnswers } from "./tenant.ts";

const KEYS = "/_matrix/key/v2/server";
/** What others ask a homeserver to find it and to believe what it signed. */
export const PUBLIC_PATHS: readonly string[] = [
  KEYS,
  CLIENT_WELL_KNOWN,
  SERVER_WELL_KNOWN,
  "/.well-known/matrix/support",
];
/** Of one answer: there is one of each for every tenant in the store, and some of them in the gateways' routes. */
export const MOST_ANSWER_BYTES = 4096;

/** @returns whether what a homeserver answered is worth keeping: what it says of itself, and of nobody else */
export function isPublicAnswer(
  path: string,
  serverName: string,
  { status, body }: { status: number; body: string },
): boolean {
  if (status !== 200 || Buffer.byteLength(body) > MOST_ANSWER_BYTES) return false;
  const said = parse(body);
  return isMapping(said) && (path !== KEYS || (said["server_name"] === serverName && "verify_keys" in said));
}

/**
 * What may still be said for a tenant that runs nowhere. Its keys whatever has changed since, and also after `valid_until_ts`: by these others
 * check what it signed before, and nothing was signed since.
 * @param hash of the configuration in effect now
 */
export function answersIn({ hash: then, answers }: LastWords, hash: string | undefined): PublicAnswers {
  if (then === hash) return answers;
  return answers[KEYS] === undefined ? {} : { [KEYS]: answers[KEYS] };
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
