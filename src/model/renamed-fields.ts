/**
 * Fields that had other names in earlier versions of this project. What such a version stored, or a shard of such a version answers, is read
 * with the present names.
 */
const RENAMED: Readonly<Record<string, string>> = {
  synapseVersion: "release",
  previousSynapseVersion: "previousRelease",
  schemaSynapseVersion: "schemaRelease",
  fleetVersion: "fleetRelease",
  fleetVersionSince: "fleetReleaseSince",
  refusedVersion: "refusedRelease",
  handover: "transition",
};

/** The same data with the present names of its fields, at the top level and in objects directly below it. */
export function withPresentNames(data: unknown): unknown {
  return renamed(data, 2);
}

function renamed(data: unknown, levels: number): unknown {
  if (levels === 0 || typeof data !== "object" || data === null || Array.isArray(data)) return data;
  const result: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(data)) result[RENAMED[name] ?? name] = renamed(value, levels - 1);
  const refused = result["refusedRelease"] as { version?: string; release?: string } | undefined;
  if (refused?.version !== undefined) result["refusedRelease"] = { ...refused, release: refused.version };
  const hash = result["refusedConfigHash"];
  if (typeof hash === "string" && result["refusedConfig"] === undefined)
    result["refusedConfig"] = { hash, reason: "ConfigRefused", message: "its configuration was refused" };
  delete result["refusedConfigHash"];
  return result;
}
