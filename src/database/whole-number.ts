import { UserError } from "../model/errors.ts";

/** Epochs and schema versions come from databases whose owners can write anything there. @throws UserError Environment */
export function wholeNumber(text: unknown, what: string): number {
  const value = typeof text === "string" && /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new UserError(
    "Environment",
    `${what} in the database is not a whole number below 2^53; restore it from a backup`,
  );
}
