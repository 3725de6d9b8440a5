import { InvalidArgumentError, Option, type Command } from "commander";
import { isMonth, type UsageMonth } from "../../model/usage-month.ts";
import { withClient } from "../options.ts";
import { csv, showList } from "../format.ts";
import { print, table } from "../output.ts";

/** usage. */
export function addUsage(tenant: Command): void {
  tenant
    .command("usage")
    .description("show what tenants took, a row per tenant and month: this month of all, or all months of one")
    .argument("[name]", "name of a tenant, also of a deleted one")
    .addOption(new Option("--month <YYYY-MM>", "only this month (UTC), of the 13 that are kept").argParser(parseMonth))
    .addHelpText("after", "\nWith -o csv, each figure has a column of its own, and what is not known is empty.")
    .action((name: string | undefined, { month }: { month?: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const query = { tenant: name, month };
        const { items } = await client.call<{ items: UsageMonth[] }>("GET", "/v1/usage", { query, has: ["items"] });
        // The one command that takes it.
        if (output === "csv") return print(csv(COLUMNS, items));
        showList(output, items, "No usage is recorded for that.", () =>
          table(
            [
              "TENANT",
              "MONTH",
              "USERS",
              "ACTIVE",
              "PER DAY",
              "MESSAGES",
              "MEDIA",
              "DATABASE",
              "CPU",
              "REQUESTS",
              "PEAK",
            ],
            items.map((row) => [
              row.tenant,
              row.month,
              text(row.users),
              text(row.activeUsers),
              text(row.activeUsersDailyPeak),
              text(row.messages),
              megabytes(row.mediaBytes),
              megabytes(row.databaseBytes),
              `${row.cpuSeconds.toFixed(0)} s`,
              text(row.requests),
              row.peakRequestsPerMinute === undefined ? "-" : `${row.peakRequestsPerMinute}/min`,
            ]),
          ),
        );
      }),
    );
}

/** Their order is a promise: a new one comes last. */
const COLUMNS = [
  "tenant",
  "serverName",
  "month",
  "users",
  "activeUsers",
  "activeUsersDailyPeak",
  "messages",
  "mediaBytes",
  "databaseBytes",
  "cpuSeconds",
  "requests",
  "peakRequestsPerMinute",
  "updatedAt",
] as const satisfies readonly (keyof UsageMonth)[];

function parseMonth(given: string): string {
  if (isMonth(given)) return given;
  throw new InvalidArgumentError("Allowed is a month such as 2026-01.");
}

function text(value: number | undefined): string {
  return value === undefined ? "-" : String(value);
}

function megabytes(bytes: number | undefined): string {
  return bytes === undefined ? "-" : `${(bytes / 1e6).toFixed(1)} MB`;
}
