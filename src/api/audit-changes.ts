import { parseBounded } from "../model/bounded-yaml.ts";

/** What a request changed of an object; values that may be secret are not in it. */
export interface AuditChange {
  /** Such as `release`, or `config.max_upload_size`. */
  field: string;
  /** null: it was not there. */
  before: unknown;
  /** null: it is not there any more. */
  after: unknown;
}

/** An object's wishes, field by field; a configuration by its keys. */
export type Snapshot = Readonly<Record<string, unknown>>;

const HIDDEN = "(hidden)";
/** A name of what may be a secret, whatever module or version it is of. */
const SECRET = /secret|pass|token|key|private|pepper|salt|hash|credential|cert|cookie|dsn/i;
/** Longer values are cut. JSON characters. */
const LONGEST = 1000;

/** @param spec as the API has it, and its configuration as text */
export function snapshotOf(spec: object, rest: object = {}): Snapshot {
  const { config, ...fields } = { ...spec, ...rest } as { config?: string } & Record<string, unknown>;
  return { ...fields, ...(config === undefined || config === "" ? {} : configFields(config)) };
}

/** Of two looks at an object; undefined: it was not there, or is not any more. */
export function changesBetween(before: Snapshot = {}, after: Snapshot = {}): AuditChange[] {
  const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])].toSorted();
  return fields
    .filter((field) => JSON.stringify(before[field]) !== JSON.stringify(after[field]))
    .map((field) => {
      const shown = (value: unknown) => (value === undefined ? null : cut(blanked(nameOf(field), value)));
      return { field, before: shown(before[field]), after: shown(after[field]) };
    });
}

function configFields(text: string): Record<string, unknown> {
  try {
    const value: unknown = parseBounded(text).document?.toJS({ maxAliasCount: 100 });
    if (typeof value !== "object" || value === null) return {};
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [`config.${key}`, one]));
  } catch {
    // Refused elsewhere, with the place.
    return { config: `(${text.length} characters that are no YAML)` };
  }
}

function nameOf(field: string): string {
  return field.startsWith("config.") ? field.slice("config.".length) : field;
}

function blanked(name: string, value: unknown): unknown {
  if (SECRET.test(name) && value !== null) return HIDDEN;
  if (Array.isArray(value)) return value.map((one) => blanked("", one));
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, blanked(key, one)]));
  // A name and a password in an address.
  return typeof value === "string" ? value.replaceAll(/\/\/[^/@\s]+@/g, `//${HIDDEN}@`) : value;
}

function cut(value: unknown): unknown {
  const text = JSON.stringify(value) ?? "null";
  return text.length <= LONGEST ? value : `${text.slice(0, LONGEST)}…`;
}
