/**
 * Positions in Synapse's streams, as `/sync` gives them (`next_batch`, in sliding sync the part of `pos` after the slash): one key for each stream,
 * joined by underscores, in an order that releases only add to.
 */

/** Presence and typing: they are over, or told again, when the tenant is awake; and a stop writes presence after the last poll was answered. */
const PASSING = new Set([1, 2]);
const POSITION = /^[A-Za-z0-9.~|-]+(?:_[A-Za-z0-9.~|-]+){2,30}$/;

/** @returns what of a position matters to a client that was told everything up to it; undefined: it is none that is known here */
export function lastingPart(position: string): string | undefined {
  if (!POSITION.test(position)) return undefined;
  return position
    .split("_")
    .filter((_, index) => !PASSING.has(index))
    .join("_");
}

/** Whether nothing but presence and typing lies between the two. */
export function isSamePosition(a: string, b: string): boolean {
  const lasting = lastingPart(a);
  return lasting !== undefined && lasting === lastingPart(b);
}
