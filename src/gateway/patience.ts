/** What other servers give up after 10 s (profiles, directory, keys) or 20 s (templates of memberships, media) is answered, or refused, within this. */
export const SHORT_MS = 8_000;

const FEDERATION = /^\/_matrix\/(?:federation|key)\//;
/** These are repeated for minutes by who sends them, or change something: they wait like everything else. */
const PATIENT =
  /^\/_matrix\/federation\/[^/]+\/(?:send|send_join|send_leave|send_knock|invite|exchange_third_party_invite|backfill|state|state_ids|event|event_auth)\//;

/** Whether a request comes from another server, which takes note of errors. */
export function isFromServer(target: string): boolean {
  return FEDERATION.test(target);
}

/** Whether the sender of a request gives up after `SHORT_MS`, or soon after. */
export function isShortOfPatience(target: string): boolean {
  return isFromServer(target) && !PATIENT.test(target);
}
