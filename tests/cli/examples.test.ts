import { expect, test } from "vitest";
import { flatten, pathOf, treeOf } from "../../src/cli/command-tree.ts";
import { examplesOf } from "../../src/cli/examples.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { reference } from "../../src/cli/reference.ts";

const leaves = () =>
  flatten(treeOf(buildProgram()))
    .map(({ command }) => command)
    .filter(({ commands }) => commands.length === 0);

/** As a shell would have it; only what comes before a pipe or a file for the output. */
function wordsOf(line: string): string[] {
  const [typed = ""] = line.split(/ [|>] /);
  return [...typed.matchAll(/(?:'[^']*'|[^\s'])+/g)].map(([word]) => word.replaceAll("'", ""));
}

test("the help of every command has an example, and so has its page", () => {
  const paths = leaves().map(pathOf);
  expect(paths.length).toBeGreaterThan(80);
  expect(paths.filter((path) => examplesOf(path).length === 0)).toEqual([]);
  const page = reference();
  for (const path of paths) for (const example of examplesOf(path)) expect(page).toContain(example);
  let shown = "";
  const move = leaves().find((command) => pathOf(command) === "tenant move")!;
  move.configureOutput({ writeOut: (text) => (shown += text) });
  move.outputHelp();
  expect(shown).toContain("Examples:\n  synapse-shards tenant move clinic-a\n");
});

test("every example is understood as the command that it is for, with its options", async () => {
  for (const path of leaves().map(pathOf))
    for (const example of examplesOf(path)) {
      const program = buildProgram();
      let ran: string | undefined;
      for (const { command } of flatten(treeOf(program)))
        if (command.commands.length === 0)
          command.action((...given: unknown[]) => void (ran = pathOf(given.at(-1) as never)));
      const [name, ...words] = wordsOf(example).filter((word) => !/^[A-Z]+=/.test(word));
      expect(name).toBe("synapse-shards");
      await program.parseAsync(words, { from: "user" });
      expect([example, ran]).toEqual([example, path]);
    }
});
