import type { StoredSchema } from "../../ports/databases.ts";
import type { ReleaseFacts } from "../../ports/launcher.ts";

/** Why a release cannot take a database, or undefined. */
export function schemaRefusal(
  stored: StoredSchema | undefined,
  release: string,
  facts: ReleaseFacts | undefined,
): string | undefined {
  if (!facts || !stored || stored.schemaCompatVersion <= facts.schemaVersion) return undefined;
  return (
    `Synapse ${release} knows database schemas up to ${facts.schemaVersion}, and this database can only be read from schema ` +
    `${stored.schemaCompatVersion} on; choose a newer release, or restore a backup made with ${release}`
  );
}
