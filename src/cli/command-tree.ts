import type { Command, Option } from "commander";

/** A command with the words that lead to it. */
export interface Node {
  /** Without the program's own name; several spellings where there are aliases. */
  paths: string[][];
  command: Command;
  subcommands: Node[];
}

/** The whole tree, the program first. */
export function treeOf(command: Command, paths: string[][] = [[]]): Node {
  const subcommands = command.createHelp().visibleCommands(command);
  return {
    paths,
    command,
    subcommands: subcommands
      .filter((sub) => sub.name() !== "help")
      .map((sub) => {
        const names = [sub.name(), ...sub.aliases()];
        return treeOf(
          sub,
          paths.flatMap((path) => names.map((name) => [...path, name])),
        );
      }),
  };
}

/** The words that lead to a command, without the program's own name. */
export function pathOf(command: Command): string {
  const words: string[] = [];
  for (let at = command; at.parent; at = at.parent) words.unshift(at.name());
  return words.join(" ");
}

/** What a command's arguments are names of, where they name what is there already. */
export function namesFor({ paths: [path = []], command }: Node): NamedKind | undefined {
  const [group = "", verb = ""] = path;
  if (group === "explain") return "code";
  const isNamed = command.registeredArguments.some((argument) => argument.name() === "name");
  const kind = NAMED_KINDS.find((one) => one === group);
  return isNamed && !["create", "add", "import"].includes(verb) ? kind : undefined;
}

export const NAMED_KINDS = ["tenant", "shard", "context", "code"] as const;
export type NamedKind = (typeof NAMED_KINDS)[number];

export function flatten(node: Node): Node[] {
  return [node, ...node.subcommands.flatMap(flatten)];
}

/** Options of a command, and those of the program, which every command takes too. */
export function optionsOf(program: Command, command: Command): Option[] {
  const own = command.createHelp().visibleOptions(command);
  if (command === program) return own;
  const globals = program.options.filter((option) => option.long !== "--version");
  return [...own, ...globals.filter((option) => !own.some((other) => other.long === option.long))];
}
