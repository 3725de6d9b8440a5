import { resolve } from "node:path";
import { Option, type Command } from "commander";
import { checkedServer } from "../access.ts";
import { checkedName, contextNamed, readContexts, writeContexts, type Context } from "../contexts.ts";
import { CliError, EXIT } from "../errors.ts";
import { show, showList } from "../format.ts";
import type { GlobalOptions } from "../options.ts";
import { table } from "../output.ts";

interface AddOptions extends GlobalOptions {
  tokenCommand?: string;
}

export function addContext(program: Command): void {
  const context = program.command("context").description("contexts: clusters that are named, and the one in use");

  context
    .command("add")
    .description("name a cluster: --server with --token-file or --token-command, or --data; replaces one of that name")
    .argument("<name>", "its name")
    .addOption(new Option("--token-command <command>", "shell command that prints the API's token"))
    .action(async (given: string, _options, command: Command) => {
      const name = checkedName(given);
      const contexts = await readContexts();
      contexts.contexts[name] = described(command.optsWithGlobals<AddOptions>());
      // The first one is what somebody wants who adds it.
      if (Object.keys(contexts.contexts).length === 1) contexts.current = name;
      await writeContexts(contexts);
      const { output } = command.optsWithGlobals<GlobalOptions>();
      show(output, rowOf(contexts.current, name, contexts.contexts[name]), () =>
        contexts.current === name ? `context ${name} is added, and in use` : `context ${name} is added`,
      );
    });

  context
    .command("use")
    .description('let commands be about this cluster from now on; "-" for the one of the data directory again')
    .argument("<name>", "its name")
    .action(async (name: string, _options, command: Command) => {
      const contexts = await readContexts();
      if (name === "-") delete contexts.current;
      else {
        contextNamed(contexts, name);
        contexts.current = name;
      }
      await writeContexts(contexts);
      const { output } = command.optsWithGlobals<GlobalOptions>();
      const words = name === "-" ? "no context is in use" : `context ${name} is in use`;
      show(output, { name: name === "-" ? null : name }, () => words);
    });

  context
    .command("list")
    .alias("ls")
    .description("list the contexts")
    .action(async (_options, command: Command) => {
      const { current, contexts } = await readContexts();
      const { output } = command.optsWithGlobals<GlobalOptions>();
      const rows = Object.entries(contexts).map(([name, one]) => rowOf(current, name, one));
      showList(output, rows, "No contexts found.", () =>
        table(
          ["IN USE", "NAME", "CLUSTER", "TOKEN"],
          rows.map((row) => [row.inUse ? "*" : "", row.name, row.cluster, row.token]),
        ),
      );
    });

  context
    .command("remove")
    .alias("rm")
    .description("forget a context; the cluster stays as it is")
    .argument("<name>", "its name")
    .action(async (name: string, _options, command: Command) => {
      const contexts = await readContexts();
      contextNamed(contexts, name);
      delete contexts.contexts[name];
      if (contexts.current === name) delete contexts.current;
      await writeContexts(contexts);
      const { output } = command.optsWithGlobals<GlobalOptions>();
      show(output, { name }, () => `context ${name} is removed`);
    });
}

/** @throws CliError usage */
function described({ data, server, tokenFile, tokenCommand, caFile }: AddOptions): Context {
  if (data !== undefined && server === undefined) return { data: resolve(data) };
  if (data !== undefined || server === undefined)
    throw new CliError(
      EXIT.usage,
      "a context is of a cluster elsewhere, --server URL, or of one on this machine, --data DIR",
    );
  checkedServer(server, "--server");
  const authority = caFile === undefined ? {} : { caFile: resolve(caFile) };
  if (tokenFile !== undefined && tokenCommand === undefined)
    return { server, tokenFile: resolve(tokenFile), ...authority };
  if (tokenCommand !== undefined && tokenFile === undefined) return { server, tokenCommand, ...authority };
  throw new CliError(EXIT.usage, "--server needs one of --token-file FILE and --token-command COMMAND");
}

function rowOf(current: string | undefined, name: string, context: Context) {
  const token = "data" in context ? "" : "tokenFile" in context ? context.tokenFile : `\`${context.tokenCommand}\``;
  return { name, inUse: name === current, cluster: "data" in context ? context.data : context.server, token };
}
