import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { InvalidArgumentError } from "commander";
import { readInput } from "../options.ts";

/** @throws CliError usage */
export async function targetIn(from: string | undefined, option = "--from"): Promise<unknown> {
  if (from === undefined) return undefined;
  const path = resolve(from);
  if ((await stat(path).catch(() => undefined))?.isFile() !== true) return { directory: path };
  // A library that takes long to load.
  const { parse } = await import("yaml");
  return parse(await readInput(path, option)) as unknown;
}

export function parseTime(text: string): string {
  const time = Date.parse(text);
  if (Number.isNaN(time) || !/^\d{4}-\d\d-\d\d/.test(text))
    throw new InvalidArgumentError("Allowed is a time such as 2026-01-31T08:00:00Z.");
  return new Date(time).toISOString();
}
