import type { Command } from "commander";
import type { AccountView } from "../../api/access/accounts/accounts.ts";
import type { Role } from "../../model/role.ts";
import { withClient } from "../options.ts";
import { show, showList } from "../format.ts";
import { age, table } from "../output.ts";
import { rolesHelp, withGrant } from "./token.ts";

interface Link {
  name: string;
  url: string;
  expiresAt: string;
}

export function addAccount(program: Command): void {
  const account = program
    .command("account")
    .alias("accounts")
    .description("people who sign in to the console, with a passkey or a password and codes");

  withGrant(
    account
      .command("create")
      .description("make an account, and print the link by which its person chooses how to sign in")
      .argument("<name>", "who it is: 1 to 64 of a-z, 0-9, dot, underscore and hyphen"),
  )
    .addHelpText("after", `\nRoles\n${rolesHelp()}`)
    .action((name: string, { role, tenants }: { role: Role; tenants?: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const body = { name, role, tenants };
        const link = await client.call<Link>("POST", "/v1/accounts", { body, has: ["url"] });
        show(output, link, () => link.url);
      }),
    );

  account
    .command("list")
    .alias("ls")
    .description("list all accounts")
    .action((_options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: AccountView[] }>("GET", "/v1/accounts", { has: ["items"] });
        showList(output, items, "No accounts found.", () =>
          table(
            ["NAME", "ROLE", "TENANTS", "SIGNS IN WITH", "AGE", "LAST SIGN-IN"],
            items.map(({ name, role, tenants, signsInWith, createdAt, lastSignInAt }) => [
              name,
              role,
              tenants ?? "-",
              signsInWith ?? "link not used yet",
              age(createdAt),
              lastSignInAt === undefined ? "never" : `${age(lastSignInAt)} ago`,
            ]),
          ),
        );
      }),
    );

  account
    .command("reset")
    .description("end the account's sessions and its ways to sign in, and print a new link")
    .argument("<name>", "its name")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const path = `/v1/accounts/${encodeURIComponent(name)}/reset`;
        const link = await client.call<Link>("POST", path, { has: ["url"] });
        show(output, link, () => link.url);
      }),
    );

  account
    .command("remove")
    .alias("rm")
    .description("remove an account, and end its sessions at once")
    .argument("<name>", "its name")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        await client.forget(`/v1/accounts/${encodeURIComponent(name)}`);
        show(output, { name, removed: true }, () => `removed the account ${name}`);
      }),
    );
}
