import type { Command } from "commander";
import type { BackupEntry } from "../../controller/service/backup-service.ts";
import type { TenantView } from "../../api/views.ts";
import type { Job } from "../../model/backup.ts";
import type { Client } from "../client.ts";
import { CliError, EXIT } from "../errors.ts";
import { JOB_HAS, waitForJob } from "../jobs.ts";
import { readInput, timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show } from "../format.ts";
import { note, print } from "../output.ts";
import { tenantPath } from "./tenant-path.ts";

/** verify, restore-all. */
export function addBackup(program: Command): void {
  const backup = program.command("backup").description("look after the backups of all tenants");

  backup
    .command("verify")
    .description("restore backups into a scratch database and read all that belongs to them; nothing else is touched")
    .argument("[name...]", "names of the tenants (default: all in the catalogue)")
    .option("--backup <id>", "of one tenant, the backup of this id (default: the newest)")
    .addOption(timeoutOption())
    .action((names: string[], options: WaitOptions & { backup?: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        if (options.backup !== undefined && names.length !== 1)
          throw new CliError(EXIT.usage, "--backup needs the name of one tenant");
        const chosen = names.length > 0 ? names : (await newest(client)).map(({ backup: { tenant } }) => tenant);
        const begin = (name: string) =>
          client.call<Job>("POST", `${tenantPath(name)}/backups/verify`, {
            body: { backup: options.backup },
            has: JOB_HAS,
          });
        const done = await eachInTurn(client, chosen, begin, options.timeout);
        show(output, done, () => done.map(({ message }) => message).join("\n"));
      }),
    );

  backup
    .command("restore-all")
    .description("after the loss of the cluster: make every tenant of the catalogue that is gone of its newest backup")
    .requiredOption("--identity <file>", "the private key of the backups' recipient (-: stdin)")
    .addOption(timeoutOption())
    .action((options: WaitOptions & { identity: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const identity = await readInput(options.identity, "--identity");
        const { items } = await client.call<{ items: TenantView[] }>("GET", "/v1/tenants", { has: ["items"] });
        const there = new Set(items.map(({ metadata }) => metadata.name));
        const names = (await newest(client)).map(({ backup: { tenant } }) => tenant).filter((name) => !there.has(name));
        for (const name of there) note(`tenant ${name} is there, and is left as it is`);
        const begin = (name: string) =>
          client.call<Job>("POST", `${tenantPath(name)}/restore`, { body: { identity }, has: JOB_HAS });
        const done = await eachInTurn(client, names, begin, options.timeout);
        show(output, done, () => `${done.length} of ${names.length} tenants were restored`);
      }),
    );
}

async function newest(client: Client): Promise<BackupEntry[]> {
  return (await client.call<{ items: BackupEntry[] }>("GET", "/v1/backups", { has: ["items"] })).items;
}

/** One that fails does not keep the others from it. @throws CliError the last failure */
async function eachInTurn(
  client: Client,
  names: string[],
  begin: (name: string) => Promise<Job>,
  timeoutMs: number,
): Promise<Job[]> {
  const done: Job[] = [];
  let failure: CliError | undefined;
  for (const name of names) {
    try {
      const job = await waitForJob(client, await begin(name), timeoutMs);
      done.push(job);
      note(`${name}: ${job.message}`);
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      note(`${name}: ${error.message}`);
      failure = error;
    }
  }
  if (!failure) return done;
  print(`${done.length} of ${names.length} are done`);
  throw failure;
}
