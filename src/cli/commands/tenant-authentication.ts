import { randomBytes } from "node:crypto";
import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { askFor, configOf, verdictOn, verdictWords, withItsConfig } from "../config-changes.ts";
import { CliError, EXIT } from "../errors.ts";
import { asYaml, show } from "../format.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { note } from "../output.ts";
import { waitUntilRunning } from "../wait.ts";

const NAME = ["<name>", "name of the tenant"] as const;

/** authentication show, set. */
export function addAuthentication(tenant: Command): void {
  const authentication = tenant
    .command("authentication")
    .description("a tenant's Matrix Authentication Service, which keeps its accounts in the homeserver's place");

  authentication
    .command("show")
    .description("show what of a tenant belongs into the configuration of its authentication service, with the secret")
    .argument(...NAME)
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await withItsConfig(client, name);
        const { spec } = found;
        const section = await sectionIn(found, spec.config);
        const value = { ...section, authenticationService: spec.authenticationService ?? null };
        show(output, value, () => wordsOf(section, spec.authenticationService));
      }),
    );

  authentication
    .command("set")
    .description("say where a tenant's authentication service is: in its configuration, and to gateways")
    .argument(...NAME)
    .argument("<url>", "its URL, without a path")
    .option("--wait", "wait until the tenant runs with it")
    .addOption(timeoutOption())
    .addHelpText(
      "after",
      "\nThe tenant is restarted with it. Accounts that the homeserver has are not brought to the service: its own" +
        "\nprogram does that (syn2mas).",
    )
    .action((name: string, url: string, options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const before = await configOf(client, name);
        const { config = "", authenticationService } = await authenticated(before, url);
        const verdict = await verdictOn(client, name, config);
        if (verdict.verdict === "Refused") throw new CliError(EXIT.failed, verdictWords(verdict));
        const updated = await askFor(client, name, before, config, { authenticationService });
        if (options.wait) await waitUntilRunning(client, name, updated.metadata.generation, options.timeout);
        const section = await sectionIn(updated, config);
        show(output, { ...section, authenticationService: url }, () => wordsOf(section, url));
      }),
    );
}

/** A configuration with the service, and the secret that it has or a new one. */
export async function authenticated(
  config: string | undefined,
  url: string | undefined,
): Promise<{ config: string | undefined; authenticationService?: string }> {
  if (url === undefined) return { config };
  const { authenticationSecret, authenticationUrlProblem, withAuthenticationService } = await library();
  const problem = authenticationUrlProblem(url);
  if (problem !== undefined) throw new CliError(EXIT.usage, problem);
  const secret = authenticationSecret(config ?? "") ?? randomBytes(32).toString("base64url");
  return { config: withAuthenticationService(config ?? "", { url, secret }), authenticationService: url };
}

/** For people, what belongs into the service's configuration. */
export async function sectionOf(tenant: TenantView, config: string | undefined): Promise<string> {
  return `${asYaml(await sectionIn(tenant, config)).trimEnd()}\n`;
}

async function sectionIn({ metadata, spec, url }: TenantView, config: string | undefined): Promise<object> {
  const { authenticationSecret, sectionFor } = await library();
  const secret = authenticationSecret(config ?? "");
  if (secret === undefined)
    throw new CliError(
      EXIT.failed,
      `tenant ${metadata.name} has no authentication service: it keeps its accounts itself`,
    );
  return sectionFor(spec.serverName, url, secret);
}

function wordsOf(section: object, service: string | undefined): string {
  if (service === undefined)
    note("gateways lead no logins to it: say where it is by tenant authentication set, or have a proxy do it");
  return asYaml(section).trimEnd();
}

/** Commands that do not need YAML do not load it. */
const library = () => import("../../model/authentication-service.ts");
