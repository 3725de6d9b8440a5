import { Option, type Command } from "commander";
import { CliError, EXIT } from "../errors.ts";
import { isForPeople } from "../format.ts";
import { LEVELS, lineFilter, readable, type Level } from "../log-lines.ts";
import { parseSince, parseTail, withClient, type GlobalOptions } from "../options.ts";
import { isColored } from "../output.ts";

interface LogOptions {
  follow?: boolean;
  tail?: number;
  since?: number;
  level?: Level;
}

/** logs, of tenants and of shards. @param path of the API, for a name */
export function addLogs(group: Command, of: string, description: string, path: (name: string) => string): void {
  group
    .command("logs")
    .description(description)
    .argument("<name>", `name of the ${of}`)
    .option("-f, --follow", "go on with new lines as they come")
    .option("--tail <lines>", "only the last lines", parseTail)
    .addOption(sinceOption("only lines"))
    .addOption(new Option("--level <level>", "only lines of at least this level").choices(LEVELS))
    .addHelpText(
      "after",
      `
With -o json, lines are as they were written: one object each, of {time, level, logger, serverName, request, message}.
--since and --level choose among the lines that --tail leaves.`,
    )
    .action((name: string, options: LogOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const form = formOf(output);
        const isWanted = lineFilter(options);
        const query = { follow: options.follow, tail: options.tail };
        for await (const line of client.lines(`${path(name)}/logs`, { query }))
          if (isWanted(line)) await write(`${form(line)}\n`);
      }),
    );
}

export function sinceOption(what: string): Option {
  const words = `${what} since then: a time ago such as 90s, 15m, 6h or 2d, or a date such as 2026-01-31T08:00Z`;
  return new Option("--since <time>", words).argParser(parseSince);
}

function formOf(output: GlobalOptions["output"]): (line: string) => string {
  if (output === "json") return (line) => line;
  if (isForPeople(output)) return (line) => readable(line, isColored);
  throw new CliError(EXIT.usage, "logs are printed as table or json");
}

/** Waits while stdout's reader is slower than the log. */
export async function write(text: string): Promise<void> {
  if (process.stdout.write(text)) return;
  await new Promise<void>((resolve) => void process.stdout.once("drain", resolve));
}
