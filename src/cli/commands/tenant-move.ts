import { InvalidArgumentError, type Command } from "commander";
import type { Move } from "../../model/move.ts";
import { CliError, EXIT } from "../errors.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show } from "../format.ts";
import { counted, seconds } from "../output.ts";
import { waitForMove } from "../wait.ts";
import { tenantPath } from "./tenant-path.ts";

export function addMove(tenant: Command): void {
  tenant
    .command("move")
    .description("move a tenant to another shard while it is in use, and wait until it is there")
    .argument("<name>", "name of the tenant")
    .option("--to <shard>", "the shard to move it to (default: the best other one)")
    .option(
      "--pin <duration>",
      'for how long consolidation leaves it there, such as 30m, 12h or 7d; "none": not at all (default: 1h)',
      pinSeconds,
    )
    .addOption(timeoutOption())
    .action((name: string, options: WaitOptions & { to?: string; pin?: number }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const move = await client.call<Move>("POST", `${tenantPath(name)}/move`, {
          body: { to: options.to, pinSeconds: options.pin },
          has: ["id", "from", "to"],
        });
        const result = await waitForMove(client, name, move, options.timeout);
        const { from, to, outcome, message, blackoutSeconds, parkedRequests, failedRequests } = result;
        if (outcome !== "Succeeded") {
          const what = { Refused: "was refused", RolledBack: "was rolled back", Interrupted: "was interrupted" }[
            outcome
          ];
          throw new CliError(
            EXIT.failed,
            `the move of ${name} from ${from} to ${to} ${what}${message ? `: ${message}` : ""}`,
          );
        }
        const pinnedUntil = move.pinnedUntil ?? null;
        show(output, { from, to, blackoutSeconds, parkedRequests, failedRequests, pinnedUntil }, () => {
          const requests = `${counted(parkedRequests, "request")} parked, ${failedRequests} failed`;
          const pin = pinnedUntil === null ? "consolidation may move it again" : `pinned there until ${pinnedUntil}`;
          return `moved tenant ${name} from ${from} to ${to}: blackout ${seconds(blackoutSeconds)}, ${requests}; ${pin}`;
        });
      }),
    );
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

function pinSeconds(text: string): number {
  if (text === "none") return 0;
  const [, count, unit = ""] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (count === undefined) throw new InvalidArgumentError('a number with s, m, h or d, such as 12h, or "none"');
  return Number(count) * (SECONDS[unit] ?? 1);
}
