import type { Command } from "commander";
import type { Move } from "../../model/move.ts";
import { CliError, EXIT } from "../errors.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { counted, seconds, show } from "../output.ts";
import { waitForMove } from "../wait.ts";
import { tenantPath } from "./tenant-path.ts";

export function addMove(tenant: Command): void {
  tenant
    .command("move")
    .description("move a tenant to another shard while it is in use, and wait until it is there")
    .argument("<name>", "name of the tenant")
    .option("--to <shard>", "the shard to move it to (default: the best other one)")
    .addOption(timeoutOption())
    .action((name: string, options: WaitOptions & { to?: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const move = await client.call<Move>("POST", `${tenantPath(name)}/move`, {
          body: { to: options.to },
          has: ["id", "from", "to"],
        });
        const result = await waitForMove(client, name, move, options.timeout);
        const { from, to, outcome, message, blackoutSeconds, parkedRequests, failedRequests } = result;
        if (outcome !== "Succeeded") {
          const what = outcome === "Refused" ? "was refused" : "was rolled back";
          throw new CliError(
            EXIT.failed,
            `the move of ${name} from ${from} to ${to} ${what}${message ? `: ${message}` : ""}`,
          );
        }
        show(output, { from, to, blackoutSeconds, parkedRequests, failedRequests }, () => {
          const requests = `${counted(parkedRequests, "request")} parked, ${failedRequests} failed`;
          return `moved tenant ${name} from ${from} to ${to}: blackout ${seconds(blackoutSeconds)}, ${requests}`;
        });
      }),
    );
}
