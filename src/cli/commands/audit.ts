import type { Command } from "commander";
import type { AuditEntry } from "../../api/audit.ts";
import { parseTail, withClient } from "../options.ts";
import { showList } from "../format.ts";
import { table } from "../output.ts";

export function addAudit(program: Command): void {
  program
    .command("audit")
    .description("show who changed what, and who was refused, oldest first")
    .option("--tail <n>", "the newest entries only", parseTail)
    .action((options: { tail?: number }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const entries: AuditEntry[] = [];
        for await (const line of client.lines("/v1/audit", { query: { tail: options.tail } }))
          if (line !== "") entries.push(JSON.parse(line) as AuditEntry);
        showList(output, entries, "No entries found.", () =>
          table(
            ["TIME", "WHO", "ROLE", "ACTION", "PATH", "STATUS", "FROM"],
            entries.map(({ time, actor, role, action, path, status, client: from }) => [
              time,
              actor ?? "(unknown)",
              role ?? "",
              action,
              path,
              String(status),
              from,
            ]),
          ),
        );
      }),
    );
}
