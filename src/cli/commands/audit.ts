import type { Command } from "commander";
import type { ChainVerification } from "../../api/audit.ts";
import type { AuditEntry } from "../../api/audit.ts";
import type { Client } from "../client.ts";
import { CliError, EXIT } from "../errors.ts";
import { show, showList } from "../format.ts";
import { parseTail, withClient } from "../options.ts";
import { counted, table } from "../output.ts";
import { sinceOption, write } from "./logs.ts";

interface AuditOptions {
  tail?: number;
  since?: number;
  by?: string;
  for?: string;
}

export function addAudit(program: Command): void {
  const audit = program.command("audit").description("the audit log: who changed what, and who was refused");

  narrowed(audit.command("list", { isDefault: true }))
    .description("show entries, oldest first; the command if none is given")
    .action((options: AuditOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const entries: AuditEntry[] = [];
        for await (const { entry } of entriesOf(client, options)) entries.push(entry);
        showList(output, entries, "No entries found.", (wide) => entryTable(entries, wide));
      }),
    );

  narrowed(audit.command("export"))
    .description("print entries as they were written, one JSON object a line")
    .action((options: AuditOptions, command: Command) =>
      withClient(command, async (client) => {
        for await (const { line } of entriesOf(client, options)) await write(`${line}\n`);
      }),
    );

  audit
    .command("verify")
    .description("check that no entry was changed, removed or put in since it was written")
    .addHelpText(
      "after",
      "\nKeep the head that it prints elsewhere: it shows later that nothing was cut off at the end.",
    )
    .action((_options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<ChainVerification>("GET", "/v1/audit/verification", {
          has: ["breaks", "head"],
        });
        show(output, found, () => verdict(found));
        if (found.breaks.length > 0)
          throw new CliError(
            EXIT.failed,
            `the audit log was tampered with in ${counted(found.breaks.length, "place")}`,
          );
      }),
    );
}

function narrowed(command: Command): Command {
  return command
    .option("--tail <n>", "of the newest entries only", parseTail)
    .addOption(sinceOption("only entries"))
    .option("--by <name>", "only entries of the token of this name")
    .option("--for <tenant>", "only entries about the tenant or shard of this name");
}

async function* entriesOf(
  client: Client,
  { tail, since, by, for: name }: AuditOptions,
): AsyncGenerator<{ line: string; entry: AuditEntry }> {
  for await (const line of client.lines("/v1/audit", { query: { tail } })) {
    if (line === "") continue;
    const entry = JSON.parse(line) as AuditEntry;
    if (since !== undefined && Date.parse(entry.time) < since) continue;
    if (by !== undefined && entry.actor !== by) continue;
    const isAbout = name === undefined || entry.path.split(/[/?]/).includes(name) || isMadeBy(entry, name);
    if (isAbout) yield { line, entry };
  }
}

/** A tenant's name is not in the path of the request that makes it. */
function isMadeBy({ action, changes = [] }: AuditEntry, name: string): boolean {
  return action === "createTenant" && changes.some(({ field, after }) => field === "name" && after === name);
}

function entryTable(entries: AuditEntry[], wide: boolean): string {
  const head = ["TIME", "WHO", "ROLE", "ACTION", "PATH", "STATUS", "FROM"];
  return table(
    wide ? [...head, "CHANGES"] : head,
    entries.map((entry) => {
      const { time, actor, role, action, path, status, client, omitted = 0 } = entry;
      const more = omitted === 0 ? "" : ` and ${omitted} more`;
      const cells = [time, actor ?? "(unknown)", role ?? "", action, path, `${status}${more}`, client];
      return wide ? [...cells, changeWords(entry)] : cells;
    }),
  );
}

function changeWords({ changes = [] }: AuditEntry): string {
  const word = (value: unknown) =>
    value === null ? "(none)" : typeof value === "string" ? value : JSON.stringify(value);
  return changes.map(({ field, before, after }) => `${field}: ${word(before)} → ${word(after)}`).join("; ");
}

function verdict({ entries, unchained, breaks, head }: ChainVerification): string {
  const older = unchained === 0 ? "" : `, of which ${unchained} are older than the chain`;
  const lines = breaks.map(({ entry, time, problem }) =>
    entry === 0 ? problem : `entry ${entry} of ${time}: ${problem}`,
  );
  return [...lines, `${counted(entries, "entry", "entries")}${older}; head ${head || "(none)"}`].join("\n");
}
