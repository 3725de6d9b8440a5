import { type Command, Option } from "commander";
import { type NamedToken, ROLES, type Role } from "../../model/role.ts";
import { withClient } from "../options.ts";
import { show, showList } from "../format.ts";
import { age, table } from "../output.ts";

export function addToken(program: Command): void {
  const token = program
    .command("token")
    .alias("tokens")
    .description("tokens of people: each has a name, which the audit log shows, and a role");

  token
    .command("create")
    .description("make a token, and print it; nothing shows it again")
    .argument("<name>", "who gets it: 1 to 64 of a-z, 0-9, dot, underscore and hyphen")
    .addOption(new Option("--role <role>", "what its bearer may do").choices(Object.keys(ROLES)).makeOptionMandatory())
    .addHelpText(
      "after",
      `\nRoles\n${rolesHelp()}\n\nExample\n  synapse-shards token create ada --role operator > ada.token`,
    )
    .action((name: string, { role }: { role: Role }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const made = await client.call<{ name: string; role: Role; token: string }>("POST", "/v1/tokens", {
          body: { name, role },
          has: ["token"],
        });
        show(output, made, () => made.token);
      }),
    );

  token
    .command("list")
    .alias("ls")
    .description("list all tokens, without the tokens themselves")
    .action((_options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: NamedToken[] }>("GET", "/v1/tokens", { has: ["items"] });
        showList(output, items, "No tokens found; the one in the data directory is the owner's.", () =>
          table(
            ["NAME", "ROLE", "AGE"],
            items.map(({ name, role, createdAt }) => [name, role, age(createdAt)]),
          ),
        );
      }),
    );

  token
    .command("revoke")
    .description("make a token useless at once")
    .argument("<name>", "its name")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        await client.call("DELETE", `/v1/tokens/${encodeURIComponent(name)}`);
        show(output, { name, revoked: true }, () => `revoked the token ${name}`);
      }),
    );
}

function rolesHelp(): string {
  return Object.entries(ROLES)
    .map(([role, what]) => `  ${role.padEnd(9)} ${what}`)
    .join("\n");
}
