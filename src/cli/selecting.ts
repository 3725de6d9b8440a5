import { InvalidArgumentError, Option } from "commander";
import type { TenantView } from "../api/views.ts";
import { labelKeyProblem, labelValueProblem, parseSelector } from "../model/labels.ts";
import type { Client } from "./client.ts";
import { CliError, EXIT } from "./errors.ts";
import { note } from "./output.ts";

/** null: removed. */
export type LabelChanges = Record<string, string | null>;

export function selectorOption(): Option {
  const words = "only tenants with these labels, such as plan=small,region!=eu,trial,!internal";
  return new Option("-l, --selector <selector>", words).argParser((text) => {
    try {
      parseSelector(text);
      return text;
    } catch (error) {
      throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
    }
  });
}

export function labelOption(words: string): Option {
  return new Option("--label <label>", words).argParser((text: string, before: LabelChanges | undefined) => {
    const [key = "", ...rest] = text.split("=");
    const isRemoved = rest.length === 0 && key.endsWith("-");
    const name = isRemoved ? key.slice(0, -1) : key;
    const value = isRemoved ? null : rest.join("=");
    const problem =
      rest.length === 0 && !isRemoved ? "it is KEY=VALUE" : (labelKeyProblem(name) ?? labelValueProblem(value ?? ""));
    if (problem !== undefined) throw new InvalidArgumentError(problem);
    return { ...before, [name]: value };
  });
}

/** Of a tenant that has none yet. */
export function labelsToSet(changes: LabelChanges | undefined): Record<string, string> | undefined {
  if (!changes) return undefined;
  return Object.fromEntries(Object.entries(changes).filter((entry): entry is [string, string] => entry[1] !== null));
}

export async function selected(client: Client, selector: string | undefined): Promise<TenantView[]> {
  const query = { selector };
  return (await client.call<{ items: TenantView[] }>("GET", "/v1/tenants", { query, has: ["items"] })).items;
}

/** The tenants that a command is about: named, or selected. @throws CliError where it is neither, or both */
export async function namesOf(
  client: Client,
  given: readonly string[],
  selector: string | undefined,
): Promise<readonly string[]> {
  if (given.length > 0 === (selector !== undefined))
    throw new CliError(EXIT.usage, "name the tenants, or select them with --selector");
  if (selector === undefined) return given;
  const names = (await selected(client, selector)).map(({ metadata }) => metadata.name);
  if (names.length === 0) note(`no tenant has the labels ${selector}`);
  return names;
}
