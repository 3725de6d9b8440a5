import { Argument, type Command } from "commander";
import { completionScript, SHELLS, type Shell } from "../completion-script.ts";
import { NAMED_KINDS, type NamedKind } from "../command-tree.ts";
import { readContexts } from "../contexts.ts";
import { withClient } from "../options.ts";
import { print } from "../output.ts";

const USE = `
To use it:
  bash   source <(synapse-shards completion bash)
  zsh    source <(synapse-shards completion zsh)
  fish   synapse-shards completion fish | source`;

async function namesOf(command: Command, kind: NamedKind): Promise<string[]> {
  if (kind === "context") return Object.keys((await readContexts()).contexts);
  if (kind === "code") return (await import("../../model/catalogue/catalogue.ts")).allCodes();
  return namesOfAll(command, kind);
}

async function namesOfAll(command: Command, kind: "tenant" | "shard"): Promise<string[]> {
  const names: string[] = [];
  await withClient(command, async (client) => {
    const { items } = await client.call<{ items: ObjectNamed[] }>("GET", `/v1/${kind}s`, { has: ["items"] });
    names.push(...items.map(({ metadata }) => metadata.name));
  });
  return names;
}

interface ObjectNamed {
  metadata: { name: string };
}

export function addCompletion(program: Command): void {
  program
    .command("completion")
    .description("print a script that completes this program's commands and options")
    .addArgument(new Argument("<shell>", "the shell").choices(SHELLS))
    .addHelpText("after", USE)
    .action((shell: Shell) => print(completionScript(program, shell)));

  // Called by the script while somebody types: it answers soon, or with nothing.
  program
    .command("__names", { hidden: true })
    .addArgument(new Argument("<kind>").choices(NAMED_KINDS))
    .action(async (kind: NamedKind, _options, command: Command) => {
      const names = await namesOf(command, kind);
      if (names.length > 0) print(names.join("\n"));
    });
}
