import { InvalidArgumentError, type Command } from "commander";
import type { Move, MoveResult } from "../../model/move.ts";
import { actOn, choose, takesTenants, type ChoiceOptions } from "../bulk.ts";
import { CliError, EXIT } from "../errors.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { counted, seconds } from "../output.ts";
import { waitForMove } from "../wait.ts";
import { tenantPath } from "./tenant-path.ts";

/** A move takes a place from the next one that is asked for: few are begun before their end is known. */
const MOVES_AT_ONCE = 4;

export function addMove(tenant: Command): void {
  takesTenants(tenant.command("move"))
    .description("move tenants to another shard while they are in use, and wait until they are there")
    .option("--to <shard>", "the shard to move to (default: the best other one)")
    .option(
      "--pin <duration>",
      'for how long consolidation leaves them there, such as 30m, 12h or 7d; "none": not at all (default: 1h)',
      pinSeconds,
    )
    .addOption(timeoutOption())
    .action((given: string[], options: WaitOptions & ChoiceOptions & { to?: string; pin?: number }, command: Command) =>
      withClient(command, async (client, { output }) => {
        await actOn(await choose(client, given, options, "move"), output, {
          atOnce: MOVES_AT_ONCE,
          begin: (name) =>
            client.call<Move>("POST", `${tenantPath(name)}/move`, {
              body: { to: options.to, pinSeconds: options.pin },
              has: ["id", "from", "to"],
            }),
          finish: async (name, move) => ({
            ...succeeded(name, await waitForMove(client, name, move, options.timeout)),
            pinnedUntil: move.pinnedUntil ?? null,
            name,
          }),
          // Of one that is named, only what is not known to who asks.
          value: ({ name, ...moved }) => (given.length === 1 ? moved : { name, ...moved }),
          words: (name, { from, to, blackoutSeconds, parkedRequests, failedRequests, pinnedUntil }) => {
            const requests = `${counted(parkedRequests, "request")} parked, ${failedRequests} failed`;
            const pin = pinnedUntil === null ? "consolidation may move it again" : `pinned there until ${pinnedUntil}`;
            return `moved tenant ${name} from ${from} to ${to}: blackout ${seconds(blackoutSeconds)}, ${requests}; ${pin}`;
          },
        });
      }),
    );
}

const WORDS = { Refused: "was refused", RolledBack: "was rolled back", Interrupted: "was interrupted" } as const;

/** @throws CliError failed, where it did not come there */
function succeeded(name: string, result: MoveResult) {
  const { from, to, outcome, message, blackoutSeconds, parkedRequests, failedRequests } = result;
  if (outcome === "Succeeded") return { from, to, blackoutSeconds, parkedRequests, failedRequests };
  const what = `the move of ${name} from ${from} to ${to} ${WORDS[outcome]}`;
  throw new CliError(EXIT.failed, `${what}${message ? `: ${message}` : ""}`);
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

function pinSeconds(text: string): number {
  if (text === "none") return 0;
  const [, count, unit = ""] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (count === undefined) throw new InvalidArgumentError('a number with s, m, h or d, such as 12h, or "none"');
  return Number(count) * (SECONDS[unit] ?? 1);
}
