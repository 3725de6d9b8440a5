import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { withClient } from "../options.ts";
import { show } from "../format.ts";
import { tenantDetails } from "../rows.ts";
import { tenantPath } from "./tenant-path.ts";

export function addQuarantine(tenant: Command): void {
  tenant
    .command("quarantine")
    .description(
      "give a tenant a shard of its own, as happens automatically to a tenant that stops its shard's reactor twice",
    )
    .argument("<name>", "name of the tenant")
    .option("--lift", "let it share a shard again, and forget what it did")
    .action((name: string, { lift = false }: { lift?: boolean }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const changed = await client.call<TenantView>(lift ? "DELETE" : "PUT", `${tenantPath(name)}/quarantine`, {
          has: ["metadata", "spec", "status"],
        });
        show(output, tenantDetails(changed), () =>
          lift ? `tenant ${name} may share a shard again` : `tenant ${name} is quarantined: it gets a shard of its own`,
        );
      }),
    );
}
