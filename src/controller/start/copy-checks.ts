import type { TenantCounts } from "../../model/backup.ts";
import { UserError } from "../../model/errors.ts";
import type { CopyFacts } from "../../ports/backups.ts";
import type { ControllerContext } from "../context.ts";
import { schemaRefusal } from "./schema-refusal.ts";

/** @param what was restored, in words @throws UserError InvalidInput */
export function refuseUnlike(what: string, counts: TenantCounts, facts: CopyFacts): void {
  const differing = (Object.keys(counts) as (keyof TenantCounts)[]).filter(
    (each) => facts.counts[each] !== counts[each],
  );
  if (differing.length === 0) return;
  const words = differing.map((each) => `${facts.counts[each]} ${each} instead of ${counts[each]}`).join(", ");
  throw new UserError("InvalidInput", `${what} was not restored as it was made: ${words}; nothing was changed`);
}

/** @throws UserError SchemaTooNew where the release that the tenant has cannot read the backup */
export function refuseNewerSchema(
  { databases }: ControllerContext,
  release: string,
  { schemaVersion, schemaCompatVersion }: CopyFacts,
): void {
  if (schemaVersion === undefined) return;
  const found = { schemaVersion, schemaCompatVersion: schemaCompatVersion ?? schemaVersion, epoch: 0 };
  const refusal = schemaRefusal(found, release, databases.facts(release));
  if (refusal !== undefined) throw new UserError("SchemaTooNew", refusal);
}
