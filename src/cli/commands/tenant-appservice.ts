import { randomBytes } from "node:crypto";
import type { Command } from "commander";
import type { AppServicePing, Registration } from "../../model/app-service.ts";
import { changeConfig, configOf } from "../config-changes.ts";
import { confirm } from "../confirm.ts";
import { CliError, EXIT } from "../errors.ts";
import { asYaml, show, showList } from "../format.ts";
import { readInput, timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { plain, table } from "../output.ts";
import { tenantPath } from "./tenant-path.ts";

interface AddOptions extends WaitOptions {
  registration?: string;
  id?: string;
  url?: string;
  sender?: string;
  users?: string[];
  yes?: boolean;
}

const RESTARTS = "\nThe tenant is restarted with it, which clients do not see.";

/** appservice list, add, remove, ping. */
export function addAppServices(tenant: Command): void {
  const services = tenant.command("appservice").description("a tenant's application services: bridges and bots");

  services
    .command("list")
    .alias("ls")
    .description("list a tenant's application services, without their tokens")
    .argument("<name>", "name of the tenant")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { registrationsIn } = await library();
        const found = registrationsIn(await configOf(client, name));
        const rows = found.map(({ as_token: _a, hs_token: _h, ...rest }) => ({ name: rest.id, ...rest }));
        showList(output, rows, "No application services found.", () =>
          table(
            ["ID", "URL", "SENDER", "USERS"],
            found.map((one) => [one.id, one.url ?? "-", one.sender_localpart, usersOf(one)]),
          ),
        );
      }),
    );

  services
    .command("add")
    .description(
      "add an application service, or change the one with the same id; prints its registration, for the bridge",
    )
    .argument("<name>", "name of the tenant")
    .option("--registration <file>", "the bridge's registration file (-: stdin); tokens that it lacks are made")
    .option("--id <id>", "its id, in place of the file's")
    .option("--url <url>", "where Synapse sends events to, in place of the file's")
    .option("--sender <localpart>", "the localpart of its bot, in place of the file's")
    .option("--users <regex...>", "regular expressions of the user ids reserved for it, in place of the file's")
    .option("-y, --yes", "change an existing one without asking")
    .option("--wait", "wait until the tenant runs with it")
    .addOption(timeoutOption())
    .addHelpText("after", RESTARTS)
    .action((name: string, options: AddOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { parseRegistration, registrationsIn, withRegistration } = await library();
        const source =
          options.registration === undefined ? "" : await readInput(options.registration, "--registration");
        const before = await configOf(client, name);
        const known = registrationsIn(before);
        const registration = parseRegistration(source, changesIn(options), known, newToken);
        const after = withRegistration(before, registration);
        if (known.some(({ id }) => id === registration.id) && after !== before)
          await confirm({
            question: `Change application service ${registration.id} of tenant ${name}?`,
            otherwise: "nothing was changed",
            yes: options.yes,
          });
        await changeConfig(client, name, before, after, options);
        show(output, registration, () => asYaml(registration).trimEnd());
      }),
    );

  services
    .command("remove")
    .alias("rm")
    .description("remove an application service; its users and rooms stay")
    .argument("<name>", "name of the tenant")
    .argument("<id>", "its id")
    .option("-y, --yes", "do not ask")
    .option("--wait", "wait until the tenant runs without it")
    .addOption(timeoutOption())
    .addHelpText("after", RESTARTS)
    .action((name: string, id: string, options: WaitOptions & { yes?: boolean }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { withoutRegistration } = await library();
        const before = await configOf(client, name);
        const after = withoutRegistration(before, id);
        if (after === undefined) throw unknown(name, id);
        await confirm({
          question: `Remove application service ${id} of tenant ${name}?`,
          otherwise: "nothing was changed",
          yes: options.yes,
        });
        await changeConfig(client, name, before, after, options);
        show(output, { tenant: name, id }, () => `application service ${plain(id)} is removed from tenant ${name}`);
      }),
    );

  services
    .command("ping")
    .description("ask an application service whether it is there, and have it sent what it has not got yet")
    .argument("<name>", "name of the tenant")
    .argument("<id>", "its id")
    .addHelpText("after", "\nA tenant that sleeps is woken for it.")
    .action((name: string, id: string, _options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const path = `${tenantPath(name)}/app-services/${encodeURIComponent(id)}/ping`;
        const answer = await client.call<AppServicePing & { woken: boolean }>("POST", path, { has: ["woken"] });
        if ("problem" in answer) throw new CliError(EXIT.failed, `application service ${id}: ${plain(answer.problem)}`);
        show(output, answer, () => `application service ${plain(id)} answered in ${answer.milliseconds} ms`);
      }),
    );
}

/** Commands that do not need YAML do not load it. */
const library = () => import("../../model/app-service.ts");

const newToken = () => randomBytes(32).toString("base64url");

function changesIn({ id, url, sender, users }: AddOptions): object {
  return {
    ...(id === undefined ? {} : { id }),
    ...(url === undefined ? {} : { url }),
    ...(sender === undefined ? {} : { sender_localpart: sender }),
    ...(users === undefined ? {} : { namespaces: { users: users.map((regex) => ({ regex, exclusive: true })) } }),
  };
}

function usersOf({ namespaces }: Registration): string {
  return (namespaces.users ?? []).map(({ regex }) => regex).join(" ") || "-";
}

function unknown(name: string, id: string): CliError {
  return new CliError(EXIT.failed, `tenant ${name} has no application service ${plain(id)}`);
}
