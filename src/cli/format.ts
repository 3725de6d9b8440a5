import { createRequire } from "node:module";
import type * as JsonPath from "json-p3";
import { InvalidArgumentError, Option } from "commander";
import type Mustache from "mustache";
import type * as Yaml from "yaml";
import { CliError, EXIT } from "./errors.ts";
import { note, print } from "./output.ts";

/** For what takes long to load, and is rarely needed. */
const require = createRequire(import.meta.url);

const WORDS = ["table", "wide", "name", "json", "yaml", "csv"] as const;
export type Format = (typeof WORDS)[number] | `jsonpath=${string}` | `template=${string}`;

export function outputOption(): Option {
  // The last two go on with an expression.
  const option = new Option("-o, --output <format>", "how to print (csv: tenant usage alone)");
  return option
    .choices([...WORDS, "jsonpath=", "template="])
    .argParser(parseFormat)
    .default("table");
}

function parseFormat(text: string): Format {
  const [word, ...rest] = text.split("=");
  const content = rest.join("=");
  if (rest.length === 0 && WORDS.includes(text as (typeof WORDS)[number])) return text as Format;
  try {
    if (word === "jsonpath" && content !== "") return (compiled(content), `jsonpath=${content}`);
    if (word === "template" && content !== "") return (mustache().parse(content), `template=${content}`);
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message.split("\n", 1)[0]}.`);
  }
  throw new InvalidArgumentError(
    `Allowed are ${WORDS.join(", ")}, jsonpath='{$[*].name}' and template='{{#.}}{{name}} {{/.}}'.`,
  );
}

/** Whether it is read by people, who are told in words what happened. */
export function isForPeople(format: Format): format is "table" | "wide" {
  return format === "table" || format === "wide";
}

/** Prints a value in one of the forms for programs, or its picture for people. @param picture is told whether there is room for more */
export function show(format: Format, value: unknown, picture: (wide: boolean) => string): void {
  const text = isForPeople(format) ? picture(format === "wide") : forPrograms(format, value);
  if (text !== "") print(text);
}

/** The same for lists, of which an empty one is said to be empty. */
export function showList(format: Format, values: unknown[], none: string, picture: (wide: boolean) => string): void {
  if (isForPeople(format) && values.length === 0) note(none);
  else show(format, values, picture);
}

function forPrograms(format: Exclude<Format, "table" | "wide">, value: unknown): string {
  if (format === "json") return JSON.stringify(value, null, 2);
  if (format === "yaml") return asYaml(value);
  if (format === "name") return namesIn(value);
  if (format === "csv") throw new CliError(EXIT.usage, "only tenant usage prints csv");
  const content = format.slice(format.indexOf("=") + 1);
  return format.startsWith("jsonpath=") ? valuesAt(content, value) : filled(content, value);
}

export function asYaml(value: unknown): string {
  const { stringify } = require("yaml") as typeof Yaml;
  return stringify(value);
}

/** One name a line, as arguments for the next command. */
function namesIn(value: unknown): string {
  return [value]
    .flat()
    .map((item) => {
      const { name } = Object(item) as { name?: unknown };
      if (typeof name !== "string") throw new CliError(EXIT.usage, "-o name: what this command prints has no names");
      return name;
    })
    .join("\n");
}

/** As RFC 9535 has it; kubectl's braces around it, and a missing "$", are understood. @throws Error where it is wrong */
function compiled(expression: string): JsonPath.JSONPathQuery {
  const { compile } = require("json-p3") as typeof JsonPath;
  const bare = /^\{(.*)\}$/s.exec(expression)?.[1] ?? expression;
  return compile(bare.startsWith("$") ? bare : `$${/^[.[]/.test(bare) ? "" : "."}${bare}`);
}

/** One value a line; text as it is, the rest as JSON. */
function valuesAt(expression: string, value: unknown): string {
  const found = compiled(expression)
    .query(value as JsonPath.JSONValue)
    .values();
  return found.map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join("\n");
}

function mustache(): typeof Mustache {
  return require("mustache") as typeof Mustache;
}

/** `\n` and `\t` may be written as such, which saves the shell's quoting. */
function filled(template: string, value: unknown): string {
  const text = template.replaceAll(String.raw`\n`, "\n").replaceAll(String.raw`\t`, "\t");
  return mustache().render(text, value, {}, { escape: (word: unknown) => String(word) });
}

/** As RFC 4180 has it, with the names of the columns first. */
export function csv<K extends string>(
  columns: readonly K[],
  rows: readonly Partial<Record<K, string | number>>[],
): string {
  const cell = (value: string | number | undefined) => {
    const words = String(value ?? "");
    return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  return [columns.join(","), ...rows.map((row) => columns.map((column) => cell(row[column])).join(","))].join("\n");
}
