import type { Command } from "commander";
import type { CodeEntry } from "../../model/catalogue/entry.ts";
import { CliError, EXIT } from "../errors.ts";
import { show } from "../format.ts";
import type { GlobalOptions } from "../options.ts";
import { fields, table } from "../output.ts";

export function addExplain(program: Command): void {
  program
    .command("explain")
    .description(
      "explain a code that an error, a status, an event or an answer of the gateway has; without one, list all",
    )
    .argument("[code]", "such as MaxShardsReached, whatever its capitals")
    .action(async (code: string | undefined, _options, command: Command) => {
      const { CATALOGUE, explained, nearestCode } = await import("../../model/catalogue/catalogue.ts");
      const { PLACES } = await import("../../model/catalogue/entry.ts");
      const { output } = command.optsWithGlobals<GlobalOptions>();
      if (code === undefined) return show(output, CATALOGUE.toSorted(byCode).map(rowOf), () => listOf(CATALOGUE));
      const found = explained(code);
      if (found.length === 0) throw new CliError(EXIT.notFound, unknown(code, nearestCode(code)));
      const text = ({ code: name, met, means, todo, runbook }: CodeEntry) =>
        fields([
          ["Code", name],
          ["Met as", met.map((place) => PLACES[place]).join("; ")],
          ["Means", means],
          ["To do", todo ?? "nothing"],
          ...(runbook === undefined ? [] : ([["Runbook", `docs/runbooks/${runbook}.md`]] satisfies [string, string][])),
        ]);
      show(output, found.map(rowOf), () => found.map(text).join("\n\n"));
    });
}

function unknown(code: string, near: string | undefined): string {
  const word = JSON.stringify(code.slice(0, 100));
  const hint = near === undefined ? "without a code, explain lists all" : `did you mean ${near}?`;
  return `there is no code ${word}; ${hint}`;
}

/** One line each: the first sentence is enough to find the right one. */
function listOf(entries: readonly CodeEntry[]): string {
  const rows = entries.toSorted(byCode).map(({ code, met, means }) => [code, met.join(", "), firstSentence(means)]);
  return table(["CODE", "MET AS", "MEANS"], rows);
}

function firstSentence(text: string): string {
  return /^.*?\.(?= |$)/.exec(text)?.[0] ?? text;
}

/** With the key that `-o name` prints. */
function rowOf({ code, met, means, todo = null, runbook = null }: CodeEntryWithNulls) {
  return { name: code, met, means, todo, runbook };
}

type CodeEntryWithNulls = Omit<CodeEntry, "todo" | "runbook"> & { todo?: string | null; runbook?: string | null };

function byCode(a: CodeEntry, b: CodeEntry): number {
  return a.code.toLowerCase() < b.code.toLowerCase() ? -1 : 1;
}
