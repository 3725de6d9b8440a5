import { createHash } from "node:crypto";
import { z } from "zod";
import { GrantFields, grantOf, refineGrant } from "../../model/grant.ts";
import { isTokenName, ROLES, type NamedToken } from "../../model/role.ts";
import { describeIssues } from "../../model/validation.ts";

/** Shorter ones can be guessed. */
const MIN_TOKEN_LENGTH = 20;

/**
 * Named tokens, by their digest. A key that is not one of ours, or of a role that there is not, is passed over with a word.
 * @param data of the Secret, in base64 @param own keys that are the cluster's own tokens
 */
export function namedIn(
  data: Readonly<Record<string, string>>,
  { own, onError }: { own: readonly string[]; onError: (message: string) => void },
): Map<string, NamedToken> {
  const named = new Map<string, NamedToken>();
  for (const [key, value] of Object.entries(data)) {
    if (own.includes(key)) continue;
    const [role = "", ...rest] = key.split(".");
    const name = rest.join(".");
    const [first = "", ...terms] = Buffer.from(value, "base64").toString("utf8").trim().split("\n");
    const token = first.trim();
    if (!(role in ROLES) || !isTokenName(name) || token.length < MIN_TOKEN_LENGTH) {
      const allowed = `ROLE.NAME with a role of ${Object.keys(ROLES).join(", ")}, and a token of at least ${MIN_TOKEN_LENGTH} characters`;
      onError(`the key ${key} of the Secret of the tokens is ignored: allowed is ${allowed}`);
      continue;
    }
    const read = TermsSchema.safeParse({ ...Object.fromEntries(terms.map(termOf)), role });
    if (read.success) {
      const { expires, ...grant } = read.data;
      const expiry = expires === undefined ? {} : { expiresAt: expires };
      named.set(createHash("sha256").update(token).digest("hex"), { name, ...grantOf(grant), ...expiry });
      continue;
    }
    const problem = describeIssues(read.error).join("; ");
    onError(`the key ${key} of the Secret of the tokens is ignored: after the token, ${problem}`);
  }
  return named;
}

/** Lines after the token. */
const TermsSchema = z.strictObject({ ...GrantFields, expires: z.iso.datetime().optional() }).superRefine(refineGrant);

function termOf(line: string): [string, string] {
  const [, key = line.slice(0, 50), value = ""] = /^\s*([^:]+?)\s*:\s*(.*?)\s*$/.exec(line) ?? [];
  return [key, value];
}
