import type { Command } from "commander";
import type { AdminAccessView, AdminSession } from "../../model/admin-access.ts";
import { show } from "../format.ts";
import { withClient } from "../options.ts";
import { fields, note } from "../output.ts";
import { tenantPath } from "./tenant-path.ts";

const NAME = ["<name>", "name of the tenant"] as const;

/** admin-access show, open, close, sign-in. */
export function addAdminAccess(tenant: Command): void {
  const access = tenant
    .command("admin-access")
    .description("the entrance for a tenant's own administrators, with an admin UI such as Ketesa");

  access
    .command("show")
    .description("show whether a tenant is open to its administrators, and the address for their admin UI")
    .argument(...NAME)
    .action((name: string, _options: object, command: Command) => answer(command, "GET", name));

  access
    .command("open")
    .description("open a tenant to its own administrators, from these networks in place of those before")
    .argument(...NAME)
    .option("--network <network...>", "where they may come from: addresses and networks; default: anywhere")
    .action((name: string, { network = [] }: { network?: string[] }, command: Command) =>
      answer(command, "PUT", name, { allowedNetworks: network }),
    );

  access
    .command("close")
    .description("close a tenant to its own administrators")
    .argument(...NAME)
    .action((name: string, _options: object, command: Command) => answer(command, "DELETE", name));

  access
    .command("sign-in")
    .description("sign in to the admin UI as one of the tenant's administrators, for an hour: prints the access token")
    .argument(...NAME)
    .argument("<user>", "an administrator: the part of the user id before the colon, or all of it")
    .addHelpText("after", "\nA tenant that sleeps is woken for it. The audit log has who asked, and not the token.")
    .action((name: string, user: string, _options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const path = `${tenantPath(name)}/users/${encodeURIComponent(user)}/admin-session`;
        const session = await client.call<AdminSession>("POST", path, { has: ["token"] });
        if (session.woken) note(`tenant ${name} slept, and was woken for it`);
        show(output, session, () => signedIn(session));
      }),
    );
}

function signedIn({ userId, token, expiresAt, address, ui }: AdminSession): string {
  return fields([
    ["Administrator", userId],
    ["Homeserver", address],
    ["Access token", token],
    ["Until", expiresAt],
    ...(ui === undefined ? [] : [["Admin UI", ui] as [string, string]]),
  ]);
}

function answer(command: Command, method: "GET" | "PUT" | "DELETE", name: string, body?: object): Promise<void> {
  return withClient(command, async (client, { output }) => {
    const path = `${tenantPath(name)}/admin-access`;
    const view = await client.call<AdminAccessView>(method, path, { ...(body ? { body } : {}), has: ["open"] });
    show(output, view, () => details(name, view));
  });
}

function details(name: string, { open, allowedNetworks, address, ui }: AdminAccessView): string {
  if (address === undefined) return `tenant ${name} is closed: the cluster has no entrance for administrators`;
  if (!open) return `tenant ${name} is closed to its administrators`;
  return fields([
    ["Administrators", `of tenant ${name} may come in`],
    ["From", allowedNetworks.length === 0 ? "any network" : allowedNetworks.join(", ")],
    ["Homeserver", address],
    ...(ui === undefined ? [] : [["Admin UI", ui] as [string, string]]),
  ]);
}
