import { InvalidArgumentError, type Command } from "commander";
import type { Job } from "../../model/backup.ts";
import type { Inspection, InspectionFacts, InspectionLogin } from "../../model/inspection.ts";
import { INSPECTION_HOURS } from "../../model/inspection-hours.ts";
import { quoted } from "../../model/shell.ts";
import { CliError, EXIT } from "../errors.ts";
import { show, showList } from "../format.ts";
import { JOB_HAS, waitForJob } from "../jobs.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { age, fields, table } from "../output.ts";
import { parseTime, targetIn } from "./restore-options.ts";
import { tenantPath } from "./tenant-path.ts";

interface InspectOptions extends WaitOptions {
  at?: string;
  backup?: string;
  from?: string;
  hours?: number;
  look?: true;
  login?: true;
  remove?: true;
}

/** inspect, inspections. */
export function addTenantInspect(tenant: Command): void {
  tenant
    .command("inspect")
    .description("restore an earlier state of a tenant beside it, and show what it has; no homeserver runs with it")
    .argument("<name>", "name of the tenant that was backed up")
    .option(
      "--at <time>",
      "the moment, such as 2026-01-31T08:00:00Z; otherwise the newest backup from before",
      parseTime,
    )
    .option("--backup <id>", "the backup of this id (default: the newest)")
    .option(
      "--from <target>",
      "a directory of backups, or a YAML file with another `target`, of the controller's machine",
    )
    .option("--hours <n>", `for how long it is kept (default: ${INSPECTION_HOURS.default})`, parseHours)
    .option("--look", "show what the one that was made has")
    .option("--login", "print how to get at its database with psql, on the controller's machine")
    .option("--remove", "remove it")
    .addOption(timeoutOption())
    .action((name: string, options: InspectOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { at, backup, from, hours, look, login, remove } = options;
        if (at !== undefined && backup !== undefined) throw new CliError(EXIT.usage, "give --at or --backup, not both");
        const asked = [look, login, remove].filter((each) => each === true).length;
        const isMade = [at, backup, from, hours].some((given) => given !== undefined);
        if (asked > 1 || (asked === 1 && isMade))
          throw new CliError(EXIT.usage, "--look, --login and --remove are given alone");
        const path = `${tenantPath(name)}/inspection`;
        if (remove) {
          await client.forget(path);
          show(output, { removed: name }, () => `the earlier state of ${name} is removed`);
          return;
        }
        if (login) {
          const found = await client.call<InspectionLogin>("POST", `${path}/login`, { has: ["database"] });
          show(output, found, () => commandOf(found));
          return;
        }
        if (!look) {
          const body = { at, backup, hours, from: await targetIn(from) };
          const job = await client.call<Job>("POST", path, { body, has: JOB_HAS });
          await waitForJob(client, job, options.timeout);
        }
        const facts = await client.call<InspectionFacts>("GET", path, { has: ["inspection"] });
        show(output, facts, () => pictureOf(facts));
      }),
    );

  tenant
    .command("inspections")
    .description("list the earlier states of tenants that can be looked at")
    .action((_options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: Inspection[] }>("GET", "/v1/inspections", { has: ["items"] });
        showList(output, items, "there are none", () =>
          table(
            ["TENANT", "OF", "AGE", "KEPT UNTIL"],
            items.map(({ tenant: name, of, madeAt, until }) => [name, of, age(madeAt), until]),
          ),
        );
      }),
    );
}

function pictureOf({ inspection, counts, users, lastEvents }: InspectionFacts): string {
  const head = fields([
    ["Tenant", inspection.tenant],
    ["State", inspection.of],
    ["Kept until", inspection.until],
    [
      "Has",
      Object.entries(counts)
        .map(([what, count]) => `${count} ${what}`)
        .join(", "),
    ],
  ]);
  const seen = table(
    ["USER", "LAST SEEN", "ADMIN", "DEACTIVATED"],
    users.map(({ name, lastSeenAt, admin, deactivated }) => [
      name,
      lastSeenAt ?? "-",
      yesNo(admin),
      yesNo(deactivated),
    ]),
  );
  const events = table(
    ["LAST EVENTS", "TYPE", "SENDER", "ROOM"],
    lastEvents.map(({ at, type, sender, room }) => [at, type, sender, room]),
  );
  return `${head}\n\n${seen}\n\n${events}`;
}

function yesNo(is: boolean): string {
  return is ? "yes" : "no";
}

function commandOf({ host, port, user, password, database }: InspectionLogin): string {
  const address = [`--host=${host}`, `--port=${port}`, `--username=${user}`, database].map(quoted).join(" ");
  return `PGPASSWORD=${quoted(password)} psql ${address}`;
}

function parseHours(text: string): number {
  const hours = Number(text);
  if (Number.isFinite(hours) && hours >= 0.1 && hours <= INSPECTION_HOURS.most) return hours;
  throw new InvalidArgumentError(`Allowed are 0.1 to ${INSPECTION_HOURS.most} hours.`);
}
