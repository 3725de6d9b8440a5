import type { Command } from "commander";
import type { BackupEntry, PointInTimeState } from "../../controller/service/backup-service.ts";
import type { TenantView } from "../../api/views.ts";
import type { Job } from "../../model/backup.ts";
import type { Client } from "../client.ts";
import { actOn, choose } from "../bulk.ts";
import { CliError, EXIT } from "../errors.ts";
import { JOB_HAS, waitForJob } from "../jobs.ts";
import { readInput, timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show, type Format } from "../format.ts";
import { fields, note } from "../output.ts";
import { mebibytes } from "../../model/bytes.ts";
import { selectorOption } from "../selecting.ts";
import { tenantPath } from "./tenant-path.ts";

/** verify, restore-all, moments. */
export function addBackup(program: Command): void {
  const backup = program.command("backup").description("look after the backups of all tenants");

  backup
    .command("verify")
    .description("restore backups into a scratch database and read all that belongs to them; nothing else is touched")
    .argument("[name...]", "names of the tenants (default: all in the catalogue)")
    .addOption(selectorOption())
    .option("--backup <id>", "of one tenant, the backup of this id (default: the newest)")
    .addOption(timeoutOption())
    .action((given: string[], options: WaitOptions & { backup?: string; selector?: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { backup: id, selector, timeout } = options;
        if (id !== undefined && given.length !== 1)
          throw new CliError(EXIT.usage, "--backup needs the name of one tenant");
        const chosen =
          given.length > 0 || selector !== undefined
            ? await choose(client, given, options)
            : { names: (await newest(client)).map(({ backup: { tenant } }) => tenant) };
        await inTurn(client, chosen.names, output, timeout, (name) =>
          client.call<Job>("POST", `${tenantPath(name)}/backups/verify`, { body: { backup: id }, has: JOB_HAS }),
        );
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
        await inTurn(client, names, output, options.timeout, (name) =>
          client.call<Job>("POST", `${tenantPath(name)}/restore`, { body: { identity }, has: JOB_HAS }),
        );
      }),
    );

  backup
    .command("moments")
    .description("show which moments tenants can be brought back to with tenant restore --at, besides those of backups")
    .action((_options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const state = await client.call<PointInTimeState>("GET", "/v1/backups/point-in-time", { has: ["spans"] });
        show(output, state, () => pictureOf(state));
      }),
    );
}

function pictureOf({ spans, until, bases, ...state }: PointInTimeState): string {
  const base = bases.at(-1);
  const underWay = state.baseUnderWay === undefined ? "" : `; another one is being made (${state.baseUnderWay})`;
  return fields([
    ["Moments", spans.map(({ from, to }) => `${from} to ${to}`).join("\n") || "none yet"],
    ["Kept for", `${state.keepDays} days`],
    ["Target", state.place],
    ["Complete until", until ?? "not known yet"],
    ["Segments waiting", String(state.waitingSegments)],
    [
      "Copies",
      base
        ? `${bases.length}, the last of ${base.finishedAt} (${mebibytes(base.bytes)})${underWay}`
        : `none yet${underWay}`,
    ],
    ...(state.problems.length > 0 ? [["Problems", state.problems.join("\n")] as [string, string]] : []),
  ]);
}

async function newest(client: Client): Promise<BackupEntry[]> {
  return (await client.call<{ items: BackupEntry[] }>("GET", "/v1/backups", { has: ["items"] })).items;
}

/** Each takes the controller's disk and the database server: one at a time. @throws CliError of what failed */
function inTurn(
  client: Client,
  names: readonly string[],
  output: Format,
  timeoutMs: number,
  begin: (name: string) => Promise<Job>,
): Promise<void> {
  return actOn({ names, isSingle: false }, output, {
    atOnce: 1,
    begin,
    finish: (_name, job) => waitForJob(client, job, timeoutMs),
    value: (job) => job,
    words: (name, { message }) => `${name}: ${message}`,
  });
}
