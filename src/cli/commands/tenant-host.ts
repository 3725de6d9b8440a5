import type { Command } from "commander";
import type { Client } from "../client.ts";
import { changeConfig, configOf } from "../config-changes.ts";
import { confirm } from "../confirm.ts";
import { CliError, EXIT } from "../errors.ts";
import { show, showList } from "../format.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { plain, table } from "../output.ts";
import { tenantPath } from "./tenant-path.ts";
import type { TenantView } from "../../api/views.ts";

const RESTARTS = "\nThe tenant is restarted with it, which clients do not see.";

interface HostRow {
  name: string;
  /** Whether requests for it lead to the tenant now. */
  inEffect: boolean;
  /** Which of its options it is from. */
  from: "serverName" | "public_baseurl" | "synapse_shards.hosts";
}

/** host list, add, remove. */
export function addHosts(tenant: Command): void {
  const hosts = tenant.command("host").description("names that lead to a tenant, beside its server name and URL");

  hosts
    .command("list")
    .alias("ls")
    .description("list the names that lead to a tenant")
    .argument("<name>", "name of the tenant")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const rows = await rowsOf(client, name);
        showList(output, rows, "No hosts found.", () =>
          table(
            ["HOST", "FROM", "IN EFFECT"],
            rows.map((row) => [plain(row.name), row.from, row.inEffect ? "yes" : "no"]),
          ),
        );
      }),
    );

  hosts
    .command("add")
    .description("have a further name lead to a tenant: one below its server name, or in the operator's allowedHosts")
    .argument("<name>", "name of the tenant")
    .argument("<host>", "a name in lower case, without a port")
    .option("--wait", "wait until the tenant runs with it")
    .addOption(timeoutOption())
    .addHelpText("after", RESTARTS)
    .action((name: string, host: string, options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { furtherHosts, withFurtherHosts } = await library();
        const before = await configOf(client, name);
        const known = furtherHosts(before);
        const after = known.includes(host) ? before : withFurtherHosts(before, [...known, host]);
        await changeConfig(client, name, before, after, options);
        show(output, { tenant: name, host }, () => `${plain(host)} leads to tenant ${name}`);
      }),
    );

  hosts
    .command("remove")
    .alias("rm")
    .description("have a further name no longer lead to a tenant")
    .argument("<name>", "name of the tenant")
    .argument("<host>", "the name")
    .option("-y, --yes", "do not ask")
    .option("--wait", "wait until the tenant runs without it")
    .addOption(timeoutOption())
    .addHelpText("after", RESTARTS)
    .action((name: string, host: string, options: WaitOptions & { yes?: boolean }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { furtherHosts, withFurtherHosts } = await library();
        const before = await configOf(client, name);
        const known = furtherHosts(before);
        if (!known.includes(host))
          throw new CliError(EXIT.failed, `${plain(host)} is no further host of tenant ${name}`);
        await confirm({
          question: `Have ${plain(host)} no longer lead to tenant ${name}?`,
          otherwise: "nothing was changed",
          yes: options.yes,
        });
        const rest = known.filter((other) => other !== host);
        await changeConfig(client, name, before, withFurtherHosts(before, rest), options);
        show(output, { tenant: name, host }, () => `${plain(host)} no longer leads to tenant ${name}`);
      }),
    );
}

async function rowsOf(client: Client, name: string): Promise<HostRow[]> {
  const { furtherHosts } = await library();
  const config = await configOf(client, name);
  const further = furtherHosts(config);
  const { spec, status } = await client.call<TenantView>("GET", tenantPath(name), { has: ["spec", "status"] });
  const inEffect = status.inEffect?.meaning.hosts ?? [];
  const own = spec.serverName.toLowerCase().replace(/:\d*$/, "");
  const from = (host: string): HostRow["from"] =>
    host === own ? "serverName" : further.includes(host) ? "synapse_shards.hosts" : "public_baseurl";
  // What was taken out and is in effect still is shown as well.
  return [...new Set([own, ...inEffect, ...further])].map((host) => ({
    name: host,
    from: from(host),
    inEffect: inEffect.includes(host),
  }));
}

/** Commands that do not need YAML do not load it. */
const library = () => import("../../model/further-hosts.ts");
