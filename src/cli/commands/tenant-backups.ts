import type { Command } from "commander";
import type { BackupEntry } from "../../controller/service/backup-service.ts";
import type { Job } from "../../model/backup.ts";
import { actOn, choose, takesTenants, type ChoiceOptions } from "../bulk.ts";
import { CliError, EXIT } from "../errors.ts";
import { JOB_HAS, waitForJob } from "../jobs.ts";
import { readInput, timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { isForPeople, show, showList } from "../format.ts";
import { age, print, table } from "../output.ts";
import { parseTime, targetIn } from "./restore-options.ts";
import { tenantPath } from "./tenant-path.ts";
import { mebibytes } from "../../model/bytes.ts";

interface RestoreOptions extends WaitOptions {
  at?: string;
  backup?: string;
  as?: string;
  identity?: string;
  from?: string;
  undo?: true;
  forget?: true;
}

/** The time to wait for one begins when it is asked for: the controller works at few of them. */
const BACKUPS_AT_ONCE = 2;

/** backup, backups, restore. */
export function addTenantBackups(tenant: Command): void {
  takesTenants(tenant.command("backup"))
    .description("back tenants up to the cluster's backup target, while they are in use or asleep, and wait for it")
    .addOption(timeoutOption())
    .action((given: string[], options: WaitOptions & ChoiceOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        await actOn(await choose(client, given, options, "back up"), output, {
          atOnce: BACKUPS_AT_ONCE,
          begin: (name) => client.call<Job>("POST", `${tenantPath(name)}/backups`, { has: JOB_HAS }),
          finish: (_name, job) => waitForJob(client, job, options.timeout),
          value: (job) => job,
          words: (name, { message }) => `backed up tenant ${name}: ${message}`,
        });
      }),
    );

  tenant
    .command("backups")
    .description("list a tenant's backups; without a name, the newest of each tenant, also of those that are gone")
    .argument("[name]", "name of the tenant")
    .action((name: string | undefined, _options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const path = name === undefined ? "/v1/backups" : `${tenantPath(name)}/backups`;
        const { items } = await client.call<{ items: (BackupEntry & { count?: number })[] }>("GET", path, {
          has: ["items"],
        });
        showList(output, items, "there are no backups", () => pictureOf(items));
      }),
    );

  tenant
    .command("restore")
    .description("bring a tenant back to a backup, or make one that is gone of its backup")
    .argument("<name>", "name of the tenant that was backed up")
    .option(
      "--at <time>",
      "the moment, such as 2026-01-31T08:00:00Z (backup moments); otherwise the newest backup from before",
      parseTime,
    )
    .option("--backup <id>", "the backup of this id (default: the newest)")
    .option(
      "--from <target>",
      "a directory of backups, or a YAML file with another `target`, of the controller's machine",
    )
    .option("--as <name>", "name of the tenant that is made of it, where the one of its server name is gone")
    .option("--identity <file>", "the private key of the backups' recipient, where the tenant is gone (-: stdin)")
    .option("--undo", "take the last restore back: the database from before is put into its place again")
    .option("--forget", "remove the database that the last restore put aside, which ends the possibility to undo it")
    .addOption(timeoutOption())
    .action((name: string, options: RestoreOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { at, backup, as, undo, forget } = options;
        if (at !== undefined && backup !== undefined) throw new CliError(EXIT.usage, "give --at or --backup, not both");
        const choices = [at, backup, as, options.identity, options.from].some((given) => given !== undefined);
        if ((undo || forget) && (choices || (undo && forget)))
          throw new CliError(EXIT.usage, "--undo and --forget are given alone");
        if (forget) {
          await client.forget(`${tenantPath(name)}/restore`);
          show(output, { forgotten: name }, () => `the database that the last restore of ${name} put aside is removed`);
          return;
        }
        const identity = options.identity === undefined ? undefined : await readInput(options.identity, "--identity");
        const job = undo
          ? await client.call<Job>("POST", `${tenantPath(name)}/restore/undo`, { has: JOB_HAS })
          : await client.call<Job>("POST", `${tenantPath(name)}/restore`, {
              body: { at, backup, as, identity, from: await targetIn(options.from) },
              has: JOB_HAS,
            });
        const done = await waitForJob(client, job, options.timeout);
        show(output, done, () => done.message);
        if (isForPeople(output) && !undo)
          print(`(what was there before is kept: --undo takes the restore back, --forget removes it)`);
      }),
    );
}

function pictureOf(items: (BackupEntry & { count?: number })[]): string {
  return table(
    ["TENANT", "BACKUP", "AGE", "DATABASE", "MEDIA", "VERIFIED", ...(items[0]?.count === undefined ? [] : ["COUNT"])],
    items.map(({ backup, verification, count }) => [
      backup.tenant,
      backup.id,
      age(backup.takenAt),
      mebibytes(backup.database.bytes),
      `${mebibytes(backup.media.totalBytes)} (${backup.media.files} files)`,
      verification ? (verification.ok ? "yes" : "Failed") : "no",
      ...(count === undefined ? [] : [String(count)]),
    ]),
  );
}
