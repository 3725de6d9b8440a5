import type { Command, Option } from "commander";
import { flatten, namesFor, optionsOf, treeOf, type Node } from "./command-tree.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** A script that completes commands, options and their choices; made from the commands themselves, so it lacks none. */
export function completionScript(program: Command, shell: Shell): string {
  const nodes = flatten(treeOf(program));
  if (shell === "fish") return fishScript(program, nodes);
  // zsh reads bash's completions.
  return shell === "zsh"
    ? `autoload -U +X bashcompinit && bashcompinit\n${bashScript(program, nodes)}`
    : bashScript(program, nodes);
}

function bashScript(program: Command, nodes: Node[]): string {
  const name = program.name();
  const all = uniqueOptions(program, nodes);
  const valued = all.filter(takesValue);
  const cases = nodes.map((node) => {
    const patterns = node.paths.map((path) => JSON.stringify(path.join(" "))).join("|");
    const flags = optionsOf(program, node.command).flatMap(spellings);
    const commands = `commands=${JSON.stringify(wordsOf(node).join(" "))}; options=${JSON.stringify(flags.join(" "))}`;
    const names = namesFor(node);
    return `    ${patterns}) ${commands}${names === undefined ? "" : `; names=${names}`};;`;
  });
  const groups = nodes
    .flatMap((node) => (node.subcommands.length > 0 ? node.paths : []))
    .map((path) => JSON.stringify(path.join(" ")));
  const choices = valued
    .filter((option) => option.argChoices)
    .map(
      (option) =>
        `    ${spellings(option).join("|")}) COMPREPLY=($(compgen -W ${JSON.stringify(option.argChoices?.join(" "))} -- "$current")); return;;`,
    );
  const fn = `_${name.replaceAll("-", "_")}`;
  return `# completion of ${name}
${fn}() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}"
  local path="" word commands options names="" skip="" i cluster=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    if [ -n "$skip" ]; then skip=""; continue; fi
    case "$word" in
    --data|--context|--server|--token-file|--ca-file) cluster+=("$word" "\${COMP_WORDS[i+1]}"); skip=1; continue;;
    ${valued.flatMap(spellings).join("|")}) skip=1; continue;;
    -*) continue;;
    esac
    # Only groups have commands below them: the rest are arguments.
    case "$path" in
    ${groups.join("|")}) path="\${path:+$path }$word";;
    esac
  done
  case "$previous" in
    --context) COMPREPLY=($(compgen -W "$("\${COMP_WORDS[0]}" __names context 2>/dev/null)" -- "$current")); return;;
${choices.join("\n")}
    ${valued
      .filter((option) => !option.argChoices)
      .flatMap(spellings)
      .join("|")}) COMPREPLY=($(compgen -f -- "$current")); return;;
  esac
  case "$path" in
${cases.join("\n")}
    *) return;;
  esac
  # Without a cluster that answers, there are none.
  [[ -z "$names" || "$current" == -* ]] ||
    commands="$commands $("\${COMP_WORDS[0]}" __names "$names" \${cluster[@]+"\${cluster[@]}"} 2>/dev/null)"
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$current"));;
    *) COMPREPLY=($(compgen -W "$commands" -- "$current"));;
  esac
}
complete -F ${fn} ${name}
`;
}

function fishScript(program: Command, nodes: Node[]): string {
  const name = program.name();
  const lines = [`# completion of ${name}`, `complete -c ${name} -f`];
  for (const node of nodes) {
    for (const path of node.paths) {
      const seen = path.map((word) => `__fish_seen_subcommand_from ${word}`);
      const below = wordsOf(node).join(" ");
      const none = below === "" ? [] : [`not __fish_seen_subcommand_from ${below}`];
      const when = [...seen, ...none].join("; and ");
      const condition = when === "" ? "" : ` -n ${quoted(when)}`;
      for (const sub of node.subcommands) {
        for (const word of [sub.command.name(), ...sub.command.aliases()]) {
          lines.push(`complete -c ${name}${condition} -a ${word} -d ${quoted(sub.command.description())}`);
        }
      }
      const choices = node.command.registeredArguments.flatMap((argument) => argument.argChoices ?? []);
      const names = namesFor(node);
      if (names !== undefined)
        lines.push(`complete -c ${name}${condition} -a '(${name} __names ${names} 2>/dev/null)'`);
      for (const choice of choices) lines.push(`complete -c ${name}${condition} -a ${choice}`);
      const options = node.command === program ? program.options : node.command.options;
      const when2 = node.command === program ? "" : condition;
      for (const option of options) lines.push(`complete -c ${name}${when2}${fishOption(option)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function fishOption(option: Option): string {
  const short = option.short === undefined ? "" : ` -s ${option.short.slice(1)}`;
  const long = option.long === undefined ? "" : ` -l ${option.long.slice(2)}`;
  const files = option.argChoices ? ` -x -a ${quoted(option.argChoices.join(" "))}` : " -r -F";
  return `${short}${long}${takesValue(option) ? files : ""} -d ${quoted(option.description)}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

function wordsOf(node: Node): string[] {
  const commands = node.subcommands.flatMap((sub) => [sub.command.name(), ...sub.command.aliases()]);
  return [...commands, ...node.command.registeredArguments.flatMap((argument) => argument.argChoices ?? [])];
}

function uniqueOptions(program: Command, nodes: Node[]): Option[] {
  const byName = new Map(
    nodes.flatMap((node) => optionsOf(program, node.command)).map((option) => [option.long, option]),
  );
  return [...byName.values()];
}

function spellings(option: Option): string[] {
  return [option.short, option.long].filter((word) => word !== undefined);
}

function takesValue(option: Option): boolean {
  return option.required || option.optional;
}
