import pc from "picocolors";
import type { TenantView } from "../api/views.ts";
import type { ConfigVerdict } from "../model/config-verdict.ts";
import type { Client } from "./client.ts";
import { CliError, EXIT } from "./errors.ts";
import { HAS, tenantPath } from "./commands/tenant-path.ts";
import type { WaitOptions } from "./options.ts";
import { isColored, note, plain } from "./output.ts";
import { waitUntilRunning } from "./wait.ts";

const colors = pc.createColors(isColored);

/** What would become of a configuration of a tenant. */
export function verdictOn(client: Client, tenant: string, config: string): Promise<ConfigVerdict> {
  return client.call<ConfigVerdict>("POST", `${tenantPath(tenant)}/config/check`, {
    body: { config },
    has: ["verdict"],
  });
}

/** A tenant with its own configuration. */
export function withItsConfig(client: Client, name: string): Promise<TenantView> {
  return client.call<TenantView>("GET", tenantPath(name), { query: { includeConfig: true }, has: HAS });
}

/** A tenant's own configuration, as text. */
export async function configOf(client: Client, name: string): Promise<string> {
  return (await withItsConfig(client, name)).spec.config ?? "";
}

/** What a new tenant takes of another one's configuration. */
export async function copiedConfig(client: Client, template: string): Promise<string> {
  const config = await configOf(client, template);
  // Commands that do not need YAML do not load it.
  const { copyOf } = await import("../model/template-tenant.ts");
  return copyOf(config).text;
}

/**
 * Asks for a configuration in the place of the one that was read.
 * @param more what is changed with it @throws CliError where it is another one by now
 */
export async function askFor(
  client: Client,
  name: string,
  before: string,
  after: string,
  more: object = {},
): Promise<TenantView> {
  if ((await configOf(client, name)) !== before)
    throw new CliError(EXIT.failed, `somebody else has changed the configuration of tenant ${name} meanwhile`);
  return client.call<TenantView>("PATCH", tenantPath(name), { body: { config: after, ...more }, has: HAS });
}

/** Asks for it, unless it would be refused. */
export async function changeConfig(
  client: Client,
  name: string,
  before: string,
  after: string,
  options: WaitOptions,
): Promise<void> {
  if (after === before) {
    note("nothing was changed");
    return;
  }
  const verdict = await verdictOn(client, name, after);
  if (verdict.verdict === "Refused") throw new CliError(EXIT.failed, verdictWords(verdict));
  const updated = await askFor(client, name, before, after);
  if (options.wait) await waitUntilRunning(client, name, updated.metadata.generation, options.timeout);
}

const WORDS = { Accepted: "would be accepted", Refused: "would be refused", Unknown: "cannot be judged now" };

/** For people: the verdict, and a line for each warning. */
export function verdictWords({ verdict, reason, message, warnings }: ConfigVerdict): string {
  const why = message === undefined ? "" : `: ${plain(message)}${reason === undefined ? "" : ` (${reason})`}`;
  return [`the configuration ${WORDS[verdict]}${why}`, ...warnings.map((one) => `warning: ${plain(one)}`)].join("\n");
}

/** As `diff -u` shows it; empty where both are the same. */
export async function differenceOf(name: string, before: string, after: string): Promise<string> {
  if (before === after) return "";
  // A library that few commands need.
  const { createTwoFilesPatch, FILE_HEADERS_ONLY } = await import("diff");
  const options = { context: 3, headerOptions: FILE_HEADERS_ONLY };
  const patch = createTwoFilesPatch(`${name} (now)`, `${name} (then)`, before, after, undefined, undefined, options);
  return patch.trimEnd().split("\n").map(painted).join("\n");
}

function painted(line: string): string {
  const text = line.split("\t").map(plain).join("\t");
  if (/^(---|\+\+\+) /.test(line)) return colors.bold(text);
  if (line.startsWith("+")) return colors.green(text);
  if (line.startsWith("-")) return colors.red(text);
  return line.startsWith("@@") ? colors.cyan(text) : text;
}
