import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import type { Client } from "../client.ts";
import { recentEvents } from "../event-table.ts";
import { show } from "../format.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { tenantDetails } from "../rows.ts";
import { waitFor, waitUntilRunning } from "../wait.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

/** rename. */
export function addRename(tenant: Command): void {
  tenant
    .command("rename")
    .argument("<name>", "the name that it has")
    .argument("<new-name>", "a DNS label that no other tenant has, nor a deleted one whose data are kept")
    .description(
      "give a tenant another name, and wait for it: its requests wait meanwhile. Its server name, users and data stay as they are",
    )
    .addOption(timeoutOption())
    .action((name: string, to: string, { timeout }: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const asked = await client.call<TenantView>("POST", `${tenantPath(name)}/rename`, { body: { to }, has: HAS });
        const now = asked.metadata.name === to ? asked : await renamed(client, name, asked, timeout);
        show(
          output,
          tenantDetails(now),
          () => `tenant ${name} is ${to} now; its server name is ${now.spec.serverName}`,
        );
      }),
    );
}

/** @throws CliError failed, timeout */
async function renamed(client: Client, name: string, asked: TenantView, timeout: number): Promise<TenantView> {
  const { id, to = "", wakes } = asked.status.rename ?? {};
  const now = await waitFor<TenantView>(`tenant ${name}`, timeout, async () => {
    const before = await client.find<TenantView>(tenantPath(name), { has: HAS });
    if (before && id !== undefined && before.status.rename?.id === id)
      return { waiting: `${name} is ${before.status.phase}` };
    const after = await client.find<TenantView>(tenantPath(to), { has: HAS });
    if (after?.status.formerNames?.some((former) => former.name === name)) return { done: after };
    const told = (await recentEvents(client, `Tenant/${name}`)).findLast(({ reason }) => reason === "NotRenamed");
    return { failed: told?.message ?? `${name} was not renamed to ${to}` };
  });
  return wakes ? waitUntilRunning(client, to, now.metadata.generation, timeout) : now;
}
