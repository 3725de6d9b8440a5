import { randomBytes } from "node:crypto";
import { Option, type Command } from "commander";
import type { ChangedUser } from "../../controller/service/cluster-service.ts";
import { MOST_USERS_AT_ONCE, type UserPage, type UserSummary } from "../../model/user.ts";
import type { Client } from "../client.ts";
import { confirm } from "../confirm.ts";
import { show, showList } from "../format.ts";
import { parseWhole, withClient } from "../options.ts";
import { counted, note, table } from "../output.ts";
import { tenantPath } from "./tenant-path.ts";
import { givenPassword } from "./tenant-register-user.ts";

const USER = ["<user>", "the part of the user id before the colon, or all of it"] as const;
const WAKES = "\nA tenant that sleeps is woken for it.";

/** users list, reset-password, deactivate, make-admin. */
export function addUsers(tenant: Command): void {
  const users = tenant.command("users").description("users of a tenant");

  users
    .command("list")
    .alias("ls")
    .description("list a tenant's users, without guests")
    .argument("<name>", "name of the tenant")
    .option("--search <text>", "only those with this in their user id or display name")
    .addOption(new Option("--limit <n>", "at most this many").argParser(parseWhole(1, MOST_USERS_AT_ONCE)).default(100))
    .option("--offset <n>", "skip this many", parseWhole(0, 999_999))
    .addHelpText("after", "\nA tenant that sleeps goes on sleeping.")
    .action((name: string, query: { search?: string; limit: number; offset?: number }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<UserPage>("GET", `${tenantPath(name)}/users`, {
          query: { ...query },
          has: ["items"],
        });
        const rows = found.items.map((user) => ({ name: user.userId, ...user }));
        showList(output, rows, "No users found.", () => userTable(found.items));
        if (found.total > found.items.length) note(`${counted(found.total, "user")} in all`);
      }),
    );

  users
    .command("reset-password")
    .description("give a user another password, and end the user's sessions; without one given, it is made and printed")
    .argument("<name>", "name of the tenant")
    .argument(...USER)
    .option("--password-file <file>", "file whose first line is the password (-: stdin, or asked for at a terminal)")
    .option("--keep-sessions", "leave the user's sessions signed in")
    .addHelpText("after", WAKES)
    .action((name: string, user: string, options: { passwordFile?: string; keepSessions?: true }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const given = await givenPassword(options);
        const password = given ?? randomBytes(15).toString("base64url");
        const body = { password, logoutDevices: options.keepSessions !== true };
        const changed = await change(client, name, user, "reset-password", body);
        const answer = { ...changed, ...(given === undefined ? { password } : {}) };
        show(
          output,
          answer,
          () => `${changed.userId} has another password${given === undefined ? `\npassword: ${password}` : ""}`,
        );
      }),
    );

  users
    .command("deactivate")
    .description("deactivate a user for good: the account cannot be used, nor its name, and leaves its rooms")
    .argument("<name>", "name of the tenant")
    .argument(...USER)
    .option("--erase", "hide what the user wrote from those who join its rooms later")
    .option("-y, --yes", "do not ask")
    .addHelpText("after", WAKES)
    .action(
      (name: string, user: string, { erase = false, yes }: { erase?: boolean; yes?: boolean }, command: Command) =>
        withClient(command, async (client, { output }) => {
          await confirm({
            question: `Deactivate ${user} of tenant ${name} for good?`,
            otherwise: "nobody was deactivated",
            yes,
          });
          const changed = await change(client, name, user, "deactivate", { erase });
          show(output, changed, () => `${changed.userId} is deactivated`);
        }),
    );

  users
    .command("make-admin")
    .description("make a user an administrator of the homeserver")
    .argument("<name>", "name of the tenant")
    .argument(...USER)
    .option("--revoke", "instead, take it back")
    .addHelpText("after", WAKES)
    .action((name: string, user: string, { revoke = false }: { revoke?: boolean }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const changed = await change(client, name, user, "make-admin", { admin: !revoke });
        show(
          output,
          changed,
          () => `${changed.userId} is ${revoke ? "no administrator any more" : "an administrator"}`,
        );
      }),
    );
}

async function change(client: Client, tenant: string, user: string, verb: string, body: object): Promise<ChangedUser> {
  const path = `${tenantPath(tenant)}/users/${encodeURIComponent(user)}/${verb}`;
  const changed = await client.call<ChangedUser>("POST", path, { body, has: ["userId"] });
  if (changed.woken) note(`tenant ${tenant} slept, and was woken for it`);
  return changed;
}

function userTable(users: readonly UserSummary[]): string {
  return table(
    ["USER", "NAME", "STATE", "CREATED", "LAST SEEN"],
    users.map((user) => [
      user.userId,
      user.displayName ?? "",
      stateOf(user),
      user.createdAt?.slice(0, 10) ?? "-",
      user.lastSeen ?? "-",
    ]),
  );
}

function stateOf({ admin, deactivated, locked, appservice }: UserSummary): string {
  const words = [
    deactivated && "deactivated",
    locked && "locked",
    admin && "admin",
    appservice && "application service",
  ];
  return words.filter((word) => word !== false).join(", ") || "active";
}
