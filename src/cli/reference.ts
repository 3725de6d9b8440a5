/** Writes docs/cli.md from the commands themselves: `node src/cli/reference.ts`. A test fails while the file is not current. */
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Argument, Command, Option } from "commander";
import { flatten, treeOf } from "./command-tree.ts";
import { EXIT_CODES_HELP } from "./errors.ts";
import { buildProgram } from "./program.ts";

export const REFERENCE_FILE = resolve(import.meta.dirname, "../../docs/cli.md");

const INTRODUCTION = `# The command line

Made by \`node src/cli/reference.ts\` from the commands themselves; do not edit.

Every command speaks to the controller's HTTP API (docs/api.md). It finds the API and its token in the data directory of the
cluster on this machine; \`--server\` and \`--token-file\` lead to another one. Results go to stdout, everything for people alone to
stderr. \`-o json\` and \`-o yaml\` print the same fields.

What the output has:

| command | \`-o json\` |
| --- | --- |
| \`tenant list\` | array of \`{name, serverName, release, phase, reason, shard, url, epoch}\`; \`reason\` and \`shard\` are null where there is none |
| \`tenant get\`, \`create\`, \`update\` | the same as one object, plus \`message\`, \`address\`, \`createdAt\`, \`deletionRequestedAt\`, \`generation\`, \`observedGeneration\`, \`failures\`, \`retryAt\`, \`hasConfig\`, \`move\`, \`lastMove\`, and \`config\` with \`--show-config\` |
| \`tenant describe\` | the same, plus \`events\` |
| \`tenant move\` | \`{from, to, blackoutSeconds, parkedRequests, failedRequests}\` |
| \`tenant delete\` | array of \`{name, purged}\` |
| \`tenant register-user\` | \`{userId}\`, and \`password\` if it was made here |
| \`shard list\` | array of \`{name, release, phase, tenants, capacity, address, load}\`; \`tenants\` a number, \`load\` a share of one core |
| \`shard get\` | the same as one object, plus \`reason\`, \`message\`, \`drain\`, \`createdAt\`, \`lastSeen\`, \`tenantNames\` |
| \`shard drain\` | \`{name, drained, tenants}\` |
| \`events\` | array of \`{id, time, type, reason, object, message}\`; with \`--follow\` one object a line |
| \`status\` | \`ClusterStatus\` of the API |
| \`version\` | \`{client, server}\`; \`server\` is null where none runs |
`;

export function reference(): string {
  const program = buildProgram();
  const [, ...nodes] = flatten(treeOf(program));
  const parts = [INTRODUCTION, EXIT_CODES_HELP.replace("Exit codes:", "## Exit codes\n\n```text").concat("\n```\n")];
  parts.push(`## Options of every command\n\n${optionTable([...program.options])}`);
  for (const { command } of nodes) if (command.commands.length === 0) parts.push(section(program, command));
  return `${parts.join("\n").trimEnd()}\n`;
}

function section(program: Command, command: Command): string {
  const words = [command.name()];
  for (let parent = command.parent; parent && parent !== program; parent = parent.parent) words.unshift(parent.name());
  const title = [program.name(), ...words].join(" ");
  const usage = [title, ...command.registeredArguments.map(spelled)].join(" ");
  const aliases = command.aliases().length > 0 ? ` Alias: \`${command.aliases().join("`, `")}\`.` : "";
  const text = [`## ${words.join(" ")}`, "", `\`${usage}\``, "", `${sentence(command.description())}${aliases}`, ""];
  const rows = command.registeredArguments.map((argument) => [spelled(argument), describe(argument)]);
  const options = command.options.filter((option) => !option.hidden).map((option) => [option.flags, describe(option)]);
  if (rows.length + options.length > 0) text.push(markdownTable([...rows, ...options]));
  return text.join("\n");
}

function optionTable(options: Option[]): string {
  return markdownTable(options.map((option) => [option.flags, describe(option)]));
}

function markdownTable(rows: string[][]): string {
  const lines = rows.map(([name = "", text = ""]) => `| \`${name}\` | ${text.replaceAll(/[|<]/g, "\\$&")} |`);
  return `| | |\n| --- | --- |\n${lines.join("\n")}\n`;
}

function describe({ description, argChoices, defaultValue, defaultValueDescription }: Option | Argument): string {
  const choices = argChoices ? `; one of ${argChoices.join(", ")}` : "";
  const value: unknown = defaultValueDescription ?? defaultValue;
  return `${description}${choices}${value === undefined || value === true ? "" : ` (default: ${String(value)})`}`;
}

function spelled(argument: Argument): string {
  const name = `${argument.name()}${argument.variadic ? "..." : ""}`;
  return argument.required ? `<${name}>` : `[${name}]`;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

if (import.meta.main) writeFileSync(REFERENCE_FILE, reference());
