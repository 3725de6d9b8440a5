import { withoutHolder } from "../../model/holder.ts";

/** Fields that are a tenant admin's own words, to be changed and sent back. */
const OWN_WORDS = new Set(["config", "labels"]);
/** Where the cluster's operators want a tenant: beside which others, too. */
const OPERATORS = new Set(["placement"]);

/** How a server that is no PostgreSQL, or none at all, answers: it tells which ports of the controller's network are open. */
const PROBED =
  /(PostgreSQL at \S+|\bthe database) (?:does not answer|cannot be connected to|cannot be reached): [^\n]*/g;

/** Words as a tenant admin sees them: names of others' tenants, and what is around the controller, are not theirs to know. */
export function limitedWords(text: string): string {
  return withoutHolder(text).replaceAll(PROBED, "$1 does not answer");
}

/** An answer as a tenant admin sees it: without the names of others' tenants. */
export function withoutOthers(value: unknown): unknown {
  if (typeof value === "string") return limitedWords(value);
  if (Array.isArray(value)) return value.map(withoutOthers);
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !OPERATORS.has(key))
      .map(([key, one]) => [key, OWN_WORDS.has(key) ? one : withoutOthers(one)]),
  );
}
