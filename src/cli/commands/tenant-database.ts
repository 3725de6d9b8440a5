import { Option, type Command } from "commander";
import { mebibytes } from "../../model/bytes.ts";
import { isMoveDue, type OnlineCopy } from "../../model/database-move.ts";
import type { ServerLoad } from "../../model/database-servers.ts";
import type { TenantView } from "../../api/views.ts";
import { actOn, choose, takesTenants, type ChoiceOptions } from "../bulk.ts";
import type { Client } from "../client.ts";
import { CliError, EXIT } from "../errors.ts";
import { showList, type Format } from "../format.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { table } from "../output.ts";
import { waitFor } from "../wait.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

const LONGEST_COPY_MS = 24 * 3_600_000;

/** move-database. */
export function addMoveDatabase(tenant: Command): void {
  takesTenants(tenant.command("move-database"))
    .description("move tenants' databases to another server, one after the other, and wait for it")
    .option("--to <server>", "the name of the server, of databaseServers in the configuration")
    .addOption(
      new Option("--online", "copy it while the tenant runs, with a short switch at the end").conflicts("parked"),
    )
    .option("--parked", "copy it while the tenant does not answer, however long that takes")
    .addOption(
      new Option("--cancel", "take back a move whose copy is being made").conflicts(["to", "online", "parked"]),
    )
    .addOption(timeoutOption())
    .action((given: string[], options: MoveOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        if (options.cancel) return cancelMoves(client, given, options, output);
        const { to } = options;
        if (to === undefined) throw new CliError(EXIT.usage, "say where to: --to SERVER, or --cancel");
        const way = options.online ? "online" : options.parked ? "parked" : undefined;
        // Given by nobody, it is for what is done while requests wait.
        const isGiven = command.getOptionValueSource("timeout") === "cli";
        const timeoutOf = (asked: TenantView) =>
          asked.status.databaseMove?.online && !isGiven ? LONGEST_COPY_MS : options.timeout;
        await actOn(await choose(client, given, options, "move the databases of"), output, {
          atOnce: 1,
          begin: (name) =>
            client.call<TenantView>("POST", `${tenantPath(name)}/move-database`, { body: { to, way }, has: HAS }),
          finish: (name, asked) => moved(client, name, asked, timeoutOf(asked)),
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
  to?: string;
  online?: true;
  parked?: true;
  cancel?: true;
}

async function cancelMoves(client: Client, given: string[], options: MoveOptions, output: Format): Promise<void> {
  await actOn(await choose(client, given, options, "take back the database moves of"), output, {
    begin: (name) => client.call<TenantView>("DELETE", `${tenantPath(name)}/move-database`, { has: HAS }),
    finish: async (_name, tenant) => tenant,
    value: ({ metadata: { name }, status }) => ({ name, ...status.lastDatabaseMove }),
    words: (name) => `the database of ${name} stays where it is`,
  });
}

/** @throws CliError failed, timeout */
async function moved(client: Client, name: string, asked: TenantView, timeout: number): Promise<TenantView> {
  const id = asked.status.databaseMove?.id;
  const now = await waitFor<TenantView>(`database of ${name}`, timeout, async () => {
    const tenant = await client.call<TenantView>("GET", tenantPath(name), { has: HAS });
    const { databaseMove, phase, message, move, lastDatabaseMove } = tenant.status;
    if (databaseMove && databaseMove.id === id) {
      const { online } = databaseMove;
      if (online && !isMoveDue(databaseMove)) return { waiting: `the database of ${name} ${copyWords(online)}` };
      return { waiting: `${name} is ${phase}${move ? ` (${move.step})` : ""}${message}` };
    }
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

/** Where a copy stands that is made while the tenant runs. */
export function copyWords({ step, bytes, totalBytes, behindBytes, message }: OnlineCopy): string {
  if (step === "Waiting") return `waits to be copied${message === undefined ? "" : ` (${message})`}`;
  if (step === "Switching") return "is copied, and exchanged next";
  if (step === "Exchanging") return "is copied, and is being exchanged";
  if (step === "Following") return `is copied; ${mebibytes(behindBytes ?? 0)} of what was written since are to come`;
  if (bytes === undefined || !totalBytes) return "is being copied";
  const percent = Math.min(99, Math.floor((100 * bytes) / totalBytes));
  return `is being copied: ${percent} % (${mebibytes(bytes)} of ${mebibytes(totalBytes)})`;
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
