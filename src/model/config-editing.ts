import { isDeepStrictEqual } from "node:util";
import { Document, isMap, type ToStringOptions } from "yaml";
import { parseBounded } from "./bounded-yaml.ts";
import { readSynapseYaml } from "./synapse-yaml.ts";

/** As texts: numbers and switches that YAML 1.1 has more of would not stay as they are written. */
const AS_WRITTEN = { version: "1.1", schema: "failsafe" } as const;

/** A configuration to be changed in place, so that comments, order and all else stay as they are written. @throws YamlProblem */
export function editable(config: string): Document {
  return parseBounded(config, AS_WRITTEN).document ?? new Document({}, AS_WRITTEN);
}

/** @returns the changed text; undefined where it does not read as wanted: aliases and merge keys lose what they led to, or bring back what was taken out */
export function textReadAs(
  document: Document,
  wanted: Record<string, unknown>,
  options?: ToStringOptions,
): string | undefined {
  const { contents } = document;
  try {
    const text = isMap(contents) && contents.items.length > 0 ? document.toString(options) : "";
    return isDeepStrictEqual(readSynapseYaml(text), wanted) ? text : undefined;
  } catch {
    return undefined;
  }
}

/** A copy as configurations are read: without a prototype. */
export function copiedMapping(mapping: Record<string, unknown>): Record<string, unknown> {
  return Object.assign(Object.create(null) as Record<string, unknown>, mapping);
}
