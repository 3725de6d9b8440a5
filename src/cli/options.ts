import { readFile } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import { InvalidArgumentError, Option, type Command } from "commander";
import type { ConnectOptions } from "./access.ts";
import { connect, type Client } from "./client.ts";
import { CliError, EXIT } from "./errors.ts";
import type { Format } from "./format.ts";

/** Options that every command takes. */
export interface GlobalOptions extends ConnectOptions {
  output: Format;
}

/** Runs a command's work with a client that is closed whatever comes. */
export async function withClient(
  command: Command,
  work: (client: Client, globals: GlobalOptions) => Promise<void>,
): Promise<void> {
  const globals = command.optsWithGlobals<GlobalOptions>();
  const client = await connect(globals);
  try {
    await work(client, globals);
  } finally {
    await client.close();
  }
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** `90s`, `5m`, `1h`, or a number of seconds. @returns milliseconds */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text);
  const milliseconds = match ? Number(match[1]) * (UNITS[match[2] ?? "s"] ?? 0) : Number.NaN;
  if (!(milliseconds > 0 && milliseconds <= 24 * 3_600_000)) {
    throw new InvalidArgumentError("Allowed is a duration such as 90s, 5m or 1h, up to 24h.");
  }
  return milliseconds;
}

const SINCE_UNITS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A time ago, such as `15m`, or a date. @returns milliseconds since 1970 */
export function parseSince(text: string): number {
  const [, count = "", unit = ""] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const ago = Number(count) * (SINCE_UNITS[unit] ?? Number.NaN);
  const at = Number.isNaN(ago) && /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Date.now() - ago;
  if (Number.isNaN(at))
    throw new InvalidArgumentError(
      "Allowed is a time ago such as 90s, 15m, 6h or 2d, or a date such as 2026-01-31T08:00Z.",
    );
  return at;
}

/** @returns a parser of whole numbers within bounds of at most six digits */
export function parseWhole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d{1,6}$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Allowed is a whole number from ${least} to ${most}.`);
  };
}

export const parseTail = parseWhole(0, 100_000);

export interface WaitOptions {
  wait?: boolean;
  timeout: number;
}

export function timeoutOption(): Option {
  return new Option("--timeout <duration>", "give up waiting after this time, e.g. 90s, 5m, 1h")
    .argParser(parseDuration)
    .default(300_000, "5m");
}

/** Reads a file named by an option, or stdin for `-`. @throws CliError usage */
export async function readInput(file: string, option: string): Promise<string> {
  try {
    return file === "-" ? await readAll(process.stdin) : await readFile(file, "utf8");
  } catch (error) {
    throw new CliError(EXIT.usage, `cannot read the file of ${option}: ${(error as Error).message}`, { cause: error });
  }
}

/** The user's part of homeserver.yaml; what its settings mean is the API's to judge. @throws CliError usage if it is not YAML */
export async function readOverrides(file: string): Promise<string> {
  const text = await readInput(file, "--config");
  // A library that takes long to load.
  const { overridesProblem } = await import("./overrides-problem.ts");
  const problem = overridesProblem(text);
  if (problem === undefined) return text;
  const { line, column, words } = problem;
  throw new CliError(EXIT.usage, `${file === "-" ? "stdin" : file}:${line}:${column}: ${words}`);
}
