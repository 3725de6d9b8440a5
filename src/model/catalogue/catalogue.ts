/**
 * Every code that an operator can meet, with what it means and what to do: `explain` prints it, docs/errors.md is made from it. A test finds the
 * codes in the sources, and fails for one that is missing here.
 */
import { nearest } from "../nearest.ts";
import { API_CODES } from "./api.ts";
import { CERTIFICATE_PROBLEMS } from "./certificates.ts";
import { entriesOf, type CodeEntry } from "./entry.ts";
import { EVENT_REASONS } from "./events.ts";
import { GATEWAY_CODES } from "./gateway.ts";
import { DEFINED, MOVE_REASON_TEXTS } from "./moves.ts";
import { CONTROL_CODES, START_CODES } from "./runtime.ts";
import { FLEET_REASONS, KEEP_REASONS, SHARD_REASONS } from "./shard.ts";
import { CONDITION_REASONS, TENANT_REASONS } from "./tenant.ts";

export const CATALOGUE: readonly CodeEntry[] = [
  ...entriesOf("api", API_CODES),
  ...entriesOf("tenant", TENANT_REASONS),
  ...entriesOf("condition", CONDITION_REASONS),
  ...entriesOf("shard", SHARD_REASONS),
  ...entriesOf("keep", KEEP_REASONS),
  ...entriesOf("fleet", FLEET_REASONS),
  ...entriesOf("event", EVENT_REASONS),
  ...entriesOf("move", MOVE_REASON_TEXTS),
  ...entriesOf("certificate", CERTIFICATE_PROBLEMS),
  ...entriesOf("control", START_CODES),
  ...entriesOf("control", CONTROL_CODES),
  ...entriesOf("gateway", GATEWAY_CODES),
  ...DEFINED,
];

/** Before the reason of a shard in events about it. */
const SHARD = "shard";

/** What a code means, once for each meaning; whatever its capitals. Empty where there is no such code. */
export function explained(code: string): CodeEntry[] {
  const word = code.toLowerCase();
  const found = CATALOGUE.filter((entry) => entry.code.toLowerCase() === word);
  if (found.length > 0 || !word.startsWith(SHARD)) return found;
  const reason = word.slice(SHARD.length);
  return CATALOGUE.filter((entry) => entry.met.includes("shard") && entry.code.toLowerCase() === reason);
}

/** Each once, in alphabetical order. */
export function allCodes(): string[] {
  return [...new Set(CATALOGUE.map(({ code }) => code))].toSorted((a, b) =>
    a.toLowerCase() < b.toLowerCase() ? -1 : 1,
  );
}

/** The code that a mistyped one most likely meant. */
export function nearestCode(code: string): string | undefined {
  return nearest(code, allCodes());
}

/** Whether there is more to be read about an error of the API than its message and a line: a runbook. */
export function explainable(code: string): boolean {
  return CATALOGUE.some((entry) => entry.code === code && entry.met.includes("api") && entry.runbook !== undefined);
}
