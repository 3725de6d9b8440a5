import { Argument, type Command } from "commander";
import { completionScript, SHELLS, type Shell } from "../completion-script.ts";
import { print } from "../output.ts";

const USE = `
To use it:
  bash   source <(synapse-shards completion bash)
  zsh    source <(synapse-shards completion zsh)
  fish   synapse-shards completion fish | source`;

export function addCompletion(program: Command): void {
  program
    .command("completion")
    .description("print a script that completes this program's commands and options")
    .addArgument(new Argument("<shell>", "the shell").choices(SHELLS))
    .addHelpText("after", USE)
    .action((shell: Shell) => print(completionScript(program, shell)));
}
