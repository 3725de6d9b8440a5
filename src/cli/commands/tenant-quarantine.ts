import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { actOn, choose, takesTenants, type ChoiceOptions } from "../bulk.ts";
import { withClient } from "../options.ts";
import { tenantDetails } from "../rows.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

export function addQuarantine(tenant: Command): void {
  takesTenants(tenant.command("quarantine"))
    .description(
      "give tenants a shard of their own each, as happens automatically to one that stops its shard's reactor twice",
    )
    .option("--lift", "let them share a shard again, and forget what they did")
    .action((given: string[], options: ChoiceOptions & { lift?: boolean }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { lift = false } = options;
        const chosen = await choose(client, given, options, lift ? "lift the quarantine of" : "quarantine");
        await actOn(chosen, output, {
          begin: (name) =>
            client.call<TenantView>(lift ? "DELETE" : "PUT", `${tenantPath(name)}/quarantine`, { has: HAS }),
          finish: (_name, changed) => Promise.resolve(changed),
          value: tenantDetails,
          words: (name) =>
            lift
              ? `tenant ${name} may share a shard again`
              : `tenant ${name} is quarantined: it gets a shard of its own`,
        });
      }),
    );
}
