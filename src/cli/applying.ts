import { isDeepStrictEqual } from "node:util";
import { stringify } from "yaml";
import { z } from "zod";
import type { TenantView } from "../api/views.ts";
import { parseBoundedDocuments, YAML_BOUNDS, YamlProblem } from "../model/bounded-yaml.ts";
import { CreateTenantBody } from "../api/schemas.ts";
import { CliError, EXIT } from "./errors.ts";
import { isMapping } from "../model/mapping.ts";

/** Thousands of tenants with configurations of their own. */
const LARGEST = 16 * 1024 * 1024;
/** As Synapse reads it. */
const YAML = { version: "1.1" } as const;
const MOST_ALIASES = 100;

/** Marks tenants that a file has brought, which `--prune` may delete when it names them no more. */
export const APPLIED_LABEL = "synapse-shards.io/applied";

const CHANGED_WHOLE = [
  "release",
  "hibernation",
  "placement",
  "isolation",
  "plan",
  "quotas",
  "authenticationService",
] as const;

/** A tenant of a file: what it does not say stays as it is; null removes. */
const WantedSchema = z
  .strictObject({
    ...CreateTenantBody.omit({ fromTemplate: true }).shape,
    config: z.union([z.string(), z.record(z.string(), z.unknown())]).optional(),
    labels: z.record(z.string(), z.string().nullable()).optional(),
    plan: z.string().nullable().optional(),
    authenticationService: z.string().nullable().optional(),
  })
  .transform(({ config, ...rest }) => ({
    ...rest,
    ...(config === undefined ? {} : { config: typeof config === "string" ? config : stringify(config, YAML) }),
  }));
export type Wanted = z.infer<typeof WantedSchema>;

/** Tenants of one document or several, each one tenant, a list of them, or `tenants:` with one. @throws CliError usage; never quotes the text */
export function readWanted(text: string, file: string): Wanted[] {
  const wrong = (words: string) => new CliError(EXIT.usage, `${file}: ${words}`);
  const values: unknown[] = [];
  try {
    for (const document of parseBoundedDocuments(text, LARGEST, YAML).documents)
      values.push(document.toJS({ maxAliasCount: MOST_ALIASES }));
  } catch (error) {
    if (error instanceof YamlProblem) throw wrong(error.message);
    throw wrong("it has too many aliases, or one that is not defined");
  }
  const items = values.flatMap((value): unknown[] => {
    if (value === null || value === undefined) return [];
    const list = isMapping(value) && Object.keys(value).length === 1 ? (value["tenants"] ?? value) : value;
    return Array.isArray(list) ? list : [list];
  });
  if (items.length === 0) throw wrong("it names no tenant");
  const wanted = items.map((item, index) => {
    const read = WantedSchema.safeParse(item);
    if (read.success) return read.data;
    const name = isMapping(item) && typeof item["name"] === "string" ? item["name"] : `number ${index + 1}`;
    const { path = [], message = "not allowed" } = read.error.issues[0] ?? {};
    throw wrong(`tenant ${name}: ${path.length === 0 ? "" : `${path.join(".")}: `}${message}`);
  });
  const seen = new Set<string>();
  for (const { name } of wanted) {
    if (seen.has(name)) throw wrong(`tenant ${name} is there twice`);
    seen.add(name);
  }
  return wanted;
}

/**
 * A name that a tenant had before is not taken for a new tenant, nor the renamed one for one that the file left out.
 * @throws CliError usage, unless the file knows both
 */
export function refuseFormerNames(wanted: readonly Wanted[], present: readonly TenantView[], file: string): void {
  const named = new Set(wanted.map(({ name }) => name));
  const there = new Set(present.map(({ metadata }) => metadata.name));
  for (const { name, serverName, domain } of wanted) {
    if (there.has(name)) continue;
    const renamed = present.find(({ status }) => status.formerNames?.some((former) => former.name === name));
    if (!renamed || named.has(renamed.metadata.name)) continue;
    const asked = serverName ?? domain ?? renamed.spec.serverName;
    if (asked !== renamed.spec.serverName) continue;
    throw new CliError(
      EXIT.usage,
      `${file}: tenant ${name} (${asked}) was renamed to ${renamed.metadata.name}: change its name in the file, or give a new ${name} a serverName`,
    );
  }
}

export interface ChangePlan {
  name: string;
  action: "create" | "change" | "delete" | "none";
  /** Of the call; for a change only what differs. */
  body?: Record<string, unknown>;
  /** What differs, a line each, without a configuration's values: these may be secrets. */
  lines: string[];
}

/**
 * What is to be done for one tenant.
 * @param present with its configuration, where the file gives one
 * @throws CliError usage for what can never be changed
 */
export function planOf(wanted: Wanted, present: TenantView | undefined): ChangePlan {
  const { name, serverName, domain, host: _, ...rest } = wanted;
  const labels = { ...wanted.labels, [APPLIED_LABEL]: "yes" };
  if (!present) {
    const set = Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== null));
    const given = Object.entries({ ...wanted, labels: set }).filter(([, value]) => value !== null);
    return { name, action: "create", body: Object.fromEntries(given), lines: [] };
  }
  const asked = serverName ?? domain;
  if (asked !== undefined && asked !== present.spec.serverName)
    throw new CliError(
      EXIT.usage,
      `tenant ${name} is ${present.spec.serverName}, and its server name can never be changed: the file has ${asked}`,
    );
  const body: Record<string, unknown> = {};
  const lines: string[] = [];
  const { spec } = present;
  const now = { ...spec, isolation: spec.isolation ?? ("shared" as const) };
  for (const key of CHANGED_WHOLE) {
    const [is, given] = [now[key], rest[key]];
    if (given === undefined || isDeepStrictEqual(orNothing(is), orNothing(given))) continue;
    body[key] = given;
    lines.push(`${key}: ${words(is)} → ${words(given)}`);
  }
  const changed = Object.entries(labels).filter(([key, value]) => (present.spec.labels?.[key] ?? null) !== value);
  if (changed.length > 0) {
    body["labels"] = Object.fromEntries(changed);
    for (const [key, value] of changed)
      lines.push(`label ${key}: ${words(present.spec.labels?.[key])} → ${words(value)}`);
  }
  if (rest.config !== undefined) {
    const paths = changedPaths(parsed(present.spec.config ?? ""), parsed(rest.config));
    if (paths.length > 0) body["config"] = rest.config;
    lines.push(...paths.map((path) => `config ${path}`));
  }
  return { name, action: lines.length === 0 ? "none" : "change", ...(lines.length === 0 ? {} : { body }), lines };
}

function orNothing(value: unknown): unknown {
  return value === null || (isMapping(value) && Object.keys(value).length === 0) ? undefined : value;
}

function words(value: unknown): string {
  return orNothing(value) === undefined ? "none" : typeof value === "string" ? value : JSON.stringify(value);
}

/** The text itself where it is none that can be read: then only the text counts. */
function parsed(config: string): unknown {
  try {
    const [document] = parseBoundedDocuments(config, YAML_BOUNDS.size, YAML).documents;
    return document?.toJS({ maxAliasCount: MOST_ALIASES }) ?? {};
  } catch {
    return config;
  }
}

/** Options that were added, removed or changed, without their values. */
function changedPaths(before: unknown, after: unknown, path = ""): string[] {
  if (isDeepStrictEqual(before, after)) return [];
  if (!isMapping(before) || !isMapping(after)) return [`${path === "" ? "(all of it)" : path}: changed`];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].toSorted();
  return keys.flatMap((key) => {
    const here = path === "" ? key : `${path}.${key}`;
    if (!Object.hasOwn(before, key)) return [`${here}: added`];
    if (!Object.hasOwn(after, key)) return [`${here}: removed`];
    return changedPaths(before[key], after[key], here);
  });
}
