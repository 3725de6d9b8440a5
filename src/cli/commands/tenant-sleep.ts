import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show } from "../format.ts";
import { tenantDetails } from "../rows.ts";
import { because, waitUntilAsleep, waitUntilRunning } from "../wait.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

/** sleep, wake. */
export function addSleep(tenant: Command): void {
  tenant
    .command("sleep")
    .description("put a tenant to sleep: it holds no place on a shard until somebody uses it, or something is due")
    .argument("<name>", "name of the tenant")
    .option("--wait", "wait until it is asleep")
    .addOption(timeoutOption())
    .action((name: string, options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const asked = await client.call<TenantView>("POST", `${tenantPath(name)}/sleep`, { has: HAS });
        const now = options.wait ? await waitUntilAsleep(client, name, options.timeout) : asked;
        const { phase } = now.status;
        show(output, tenantDetails(now), () =>
          phase === "Asleep" ? `tenant ${name} is asleep` : `tenant ${name} falls asleep`,
        );
      }),
    );

  tenant
    .command("wake")
    .description("wake a tenant")
    .argument("<name>", "name of the tenant")
    .option("--wait", "wait until it runs")
    .addOption(timeoutOption())
    .action((name: string, options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const asked = await client.call<TenantView>("POST", `${tenantPath(name)}/wake`, { has: HAS });
        const { generation } = asked.metadata;
        const now = options.wait ? await waitUntilRunning(client, name, generation, options.timeout) : asked;
        const { phase, reason, message } = now.status;
        const why = because(reason, message);
        show(output, tenantDetails(now), () =>
          phase === "Running" ? `tenant ${name} is awake` : `tenant ${name} is ${phase}${why ? `: ${why}` : ""}`,
        );
      }),
    );
}
