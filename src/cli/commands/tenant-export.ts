import { resolve } from "node:path";
import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { withClient } from "../options.ts";
import { isForPeople, show } from "../format.ts";
import { note, print } from "../output.ts";
import { progressOf } from "../progress.ts";
import { tenantPath } from "./tenant-path.ts";

const MIB = 1024 ** 2;

export function addTenantExport(tenant: Command): void {
  tenant
    .command("export")
    .description("write everything of a tenant, with its keys, into an archive from which a plain Synapse starts")
    .argument("<name>", "name of the tenant")
    .requiredOption("--to <path>", "a file that ends in .tar, or a directory to make; of the machine of this command")
    .action((name: string, options: { to: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        // Libraries that take a while to load.
        const { keepAsDirectory, keepAsFile, refuseNoDirectory } = await import("../archive-files.ts");
        const to = resolve(options.to);
        await refuseNoDirectory(to);
        const { status } = await client.call<TenantView>("GET", tenantPath(name), { has: ["status"] });
        if (status.phase !== "Suspended")
          note(`tenant ${name} goes on meanwhile; suspend it first if the archive is to take its place`);
        const told = await progressOf(`export of ${name}`);
        told.tell("its database is dumped");
        const tellBytes = (count: number) => count > MIB && told.tell(`${(count / MIB).toFixed(0)} MiB`);
        try {
          const keep = to.endsWith(".tar") ? keepAsFile : keepAsDirectory;
          const manifest = await keep(client.bytes("POST", `${tenantPath(name)}/export`), to, tellBytes);
          told.stop();
          const { users, rooms, events, media } = manifest.counts;
          const words = `${users} users, ${rooms} rooms, ${events} events, ${media} uploads`;
          show(output, { to, ...manifest }, () => `exported ${manifest.serverName} to ${to}: ${words}`);
          if (isForPeople(output)) print("(README.md in it has the steps; keep it as secret as the homeserver itself)");
        } finally {
          told.stop();
        }
      }),
    );
}
