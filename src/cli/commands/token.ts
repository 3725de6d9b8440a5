import { type Command, InvalidArgumentError, Option } from "commander";
import { type NamedToken, ROLES, type Role } from "../../model/role.ts";
import { withClient } from "../options.ts";
import { show, showList } from "../format.ts";
import { age, table } from "../output.ts";

const DAYS = { h: 1 / 24, d: 1, w: 7, y: 365 } as const;

export function addToken(program: Command): void {
  const token = program
    .command("token")
    .alias("tokens")
    .description("tokens of people and machines: each has a name, which the audit log shows, and a role");

  withGrant(
    token
      .command("create")
      .description("make a token, and print it; nothing shows it again")
      .argument("<name>", "who gets it: 1 to 64 of a-z, 0-9, dot, underscore and hyphen"),
  )
    .addOption(
      new Option(
        "--expires <time>",
        "for how long it is good, such as 12h, 90d or 1y; without it, until it is revoked",
      ).argParser(parseDays),
    )
    .addHelpText("after", `\nRoles\n${rolesHelp()}`)
    .action((name: string, { role, tenants, expires: expiresInDays }: CreateOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const made = await client.call<{ name: string; role: Role; token: string }>("POST", "/v1/tokens", {
          body: { name, role, tenants, expiresInDays },
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
            ["NAME", "ROLE", "TENANTS", "AGE", "EXPIRES", "LAST USE"],
            items.map(({ name, role, tenants, createdAt, expiresAt, lastUsedAt }) => [
              name,
              role,
              tenants ?? "-",
              age(createdAt),
              expiryText(expiresAt),
              lastUsedAt === undefined ? "never" : `${age(lastUsedAt)} ago`,
            ]),
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
        await client.forget(`/v1/tokens/${encodeURIComponent(name)}`);
        show(output, { name, revoked: true }, () => `revoked the token ${name}`);
      }),
    );
}

interface CreateOptions {
  role: Role;
  tenants?: string;
  expires?: number;
}

/** The options that say what somebody may do. */
export function withGrant(command: Command): Command {
  return command
    .addOption(new Option("--role <role>", "what they may do").choices(Object.keys(ROLES)).makeOptionMandatory())
    .option(
      "--tenants <selector>",
      "of tenant-admin and tenant-metrics: the labels of their tenants, such as customer=acme",
    );
}

export function rolesHelp(): string {
  return Object.entries(ROLES)
    .map(([role, what]) => `  ${role.padEnd(14)} ${what}`)
    .join("\n");
}

function expiryText(expiresAt: string | undefined, now = Date.now()): string {
  if (expiresAt === undefined) return "never";
  const left = Date.parse(expiresAt) - now;
  return left <= 0 ? "expired" : `in ${age(new Date(now - left).toISOString(), now)}`;
}

/** @returns days */
function parseDays(text: string): number {
  const [, count = "", unit = ""] = /^(\d{1,4})([hdwy])$/.exec(text) ?? [];
  const days = Number(count) * (DAYS[unit as keyof typeof DAYS] ?? Number.NaN);
  if (days > 0 && days <= 3650) return days;
  throw new InvalidArgumentError("Allowed is a time such as 12h, 90d, 4w or 1y, up to 10y.");
}
