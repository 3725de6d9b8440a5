import type { Command } from "commander";
import type { ServerLoad } from "../../model/database-servers.ts";
import type { TenantView } from "../../api/views.ts";
import { actOn, choose, takesTenants, type ChoiceOptions } from "../bulk.ts";
import type { Client } from "../client.ts";
import { CliError, EXIT } from "../errors.ts";
import { showList } from "../format.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { table } from "../output.ts";
import { waitFor } from "../wait.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

/** move-database. */
export function addMoveDatabase(tenant: Command): void {
  takesTenants(tenant.command("move-database"))
    .description(
      "move tenants' databases to another server, one after the other, and wait for it: each tenant's requests wait meanwhile",
    )
    .requiredOption("--to <server>", "the name of the server, of databaseServers in the configuration")
    .option("--any-size", "also a database that takes minutes to copy, in which its tenant does not answer")
    .addOption(timeoutOption())
    .action((given: string[], options: MoveOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { to, anySize, timeout } = options;
        await actOn(await choose(client, given, options, "move the databases of"), output, {
          atOnce: 1,
          begin: (name) =>
            client.call<TenantView>("POST", `${tenantPath(name)}/move-database`, { body: { to, anySize }, has: HAS }),
          finish: (name, asked) => moved(client, name, asked, timeout),
          value: ({ metadata: { name }, status }) => ({ name, ...status.lastDatabaseMove }),
          words: (name, { status: { lastDatabaseMove: { from = "", message = "" } = {}, formerDatabases = [] } }) => {
            const kept = formerDatabases.find(({ server }) => server === from)?.keptUntil;
            const until = kept === undefined ? "" : `; the former one is kept on ${from} until ${kept}`;
            return `the database of ${name} was moved from ${from} to ${to}: ${message}${until}`;
          },
        });
      }),
    );
}

interface MoveOptions extends WaitOptions, ChoiceOptions {
  to: string;
  anySize?: true;
}

/** @throws CliError failed, timeout */
async function moved(client: Client, name: string, asked: TenantView, timeout: number): Promise<TenantView> {
  const id = asked.status.databaseMove?.id;
  const now = await waitFor<TenantView>(`database of ${name}`, timeout, async () => {
    const tenant = await client.call<TenantView>("GET", tenantPath(name), { has: HAS });
    const { databaseMove, phase, message, move, lastDatabaseMove } = tenant.status;
    if (databaseMove?.id === id) return { waiting: `${name} is ${phase}${move ? ` (${move.step})` : ""}${message}` };
    // Another one may have come after it already.
    return lastDatabaseMove?.id === id ? { done: tenant } : { failed: `the move of the database of ${name} is over` };
  });
  const { lastDatabaseMove } = now.status;
  if (lastDatabaseMove?.outcome === "Succeeded") return now;
  throw new CliError(
    EXIT.failed,
    `the database of ${name} stays on ${lastDatabaseMove?.from}: ${lastDatabaseMove?.message}`,
  );
}

/** `database-server list`. */
export function addDatabaseServers(program: Command): void {
  program
    .command("database-server")
    .alias("database-servers")
    .description("PostgreSQL servers that tenants' databases are shared among")
    .command("list")
    .alias("ls")
    .description("list them, with how many databases each has")
    .action((_options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: ServerLoad[] }>("GET", "/v1/database-servers", { has: ["items"] });
        showList(output, items, "Tenants bring their databases along.", () =>
          table(
            ["NAME", "DATABASES", "AT MOST", "WEIGHT"],
            items.map(({ name, databases, maxDatabases, weight }) => [
              name,
              String(databases),
              maxDatabases === undefined ? "-" : String(maxDatabases),
              String(weight),
            ]),
          ),
        );
      }),
    );
}
