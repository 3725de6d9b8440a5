import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { actOn, choose, takesTenants, type ChoiceOptions } from "../bulk.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { tenantDetails } from "../rows.ts";
import { because, waitUntilAsleep, waitUntilRunning } from "../wait.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

/** sleep, wake. */
export function addSleep(tenant: Command): void {
  takesTenants(tenant.command("sleep"))
    .description("put tenants to sleep: they hold no place on a shard until somebody uses them, or something is due")
    .option("--wait", "wait until they are asleep")
    .addOption(timeoutOption())
    .action((given: string[], options: WaitOptions & ChoiceOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        await actOn(await choose(client, given, options, "put to sleep"), output, {
          begin: (name) => client.call<TenantView>("POST", `${tenantPath(name)}/sleep`, { has: HAS }),
          finish: async (name, asked) => (options.wait ? waitUntilAsleep(client, name, options.timeout) : asked),
          value: tenantDetails,
          words: (name, { status }) =>
            status.phase === "Asleep" ? `tenant ${name} is asleep` : `tenant ${name} falls asleep`,
        });
      }),
    );

  takesTenants(tenant.command("wake"))
    .description("wake tenants")
    .option("--wait", "wait until they run")
    .addOption(timeoutOption())
    .action((given: string[], options: WaitOptions & ChoiceOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        await actOn(await choose(client, given, options, "wake"), output, {
          begin: (name) => client.call<TenantView>("POST", `${tenantPath(name)}/wake`, { has: HAS }),
          finish: async (name, asked) =>
            options.wait ? waitUntilRunning(client, name, asked.metadata.generation, options.timeout) : asked,
          value: tenantDetails,
          words: (name, { status: { phase, reason, message } }) => {
            const why = because(reason, message);
            return phase === "Running"
              ? `tenant ${name} is awake`
              : `tenant ${name} is ${phase}${why ? `: ${why}` : ""}`;
          },
        });
      }),
    );
}
