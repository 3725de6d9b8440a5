import { Option, type Command } from "commander";
import { RANGES, type History } from "../../model/history.ts";
import { mebibytes } from "../../model/bytes.ts";
import { showList } from "../format.ts";
import { withClient } from "../options.ts";
import { note, seconds, table } from "../output.ts";

interface Column {
  head: string;
  series: string;
  text: (value: number) => string;
}

const COLUMNS: readonly Column[] = [
  ...(["running", "asleep", "failed", "shards", "places"] as const).map((series) => ({
    head: series.toUpperCase(),
    series,
    text: whole,
  })),
  { head: "LOAD", series: "load", text: (value) => value.toFixed(2) },
  { head: "MEMORY", series: "memory", text: mebibytes },
  { head: "MOVES", series: "moves", text: whole },
  { head: "BLACKOUT", series: "blackout", text: seconds },
  { head: "WAKES", series: "wakes", text: whole },
  { head: "SLEEPS", series: "sleeps", text: whole },
];

/** history. */
export function addHistory(program: Command): void {
  program
    .command("history")
    .description("show how the cluster was, or one shard: tenants, shards, load in cores, moves, wakes")
    .addOption(
      new Option("--range <range>", "how far back; year: 13 months").choices(Object.keys(RANGES)).default("hour"),
    )
    .option("--shard <name>", "only this shard")
    .action(({ range, shard }: { range: string; shard?: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<History>("GET", "/v1/history", { query: { range, shard }, has: ["series"] });
        if (found.problem !== undefined) note(found.problem);
        const rows = rowsOf(found);
        const columns = COLUMNS.filter(({ series }) => found.series.some(({ name }) => name === series));
        showList(output, rows, "Nothing is known of that time.", () =>
          table(
            ["TIME", ...columns.map(({ head }) => head)],
            rows.map((row) => [
              row.name,
              ...columns.map(({ series, text }) => {
                const value = row.values[series];
                return value === undefined ? "-" : text(value);
              }),
            ]),
          ),
        );
      }),
    );
}

/** Of each step of which something is known; with the key that `-o name` prints. */
function rowsOf({ from, stepSeconds, series }: History): { name: string; values: Record<string, number> }[] {
  const steps = series[0]?.values.length ?? 0;
  return Array.from({ length: steps }, (_, index) => {
    const values = series.flatMap(({ name, values }): [string, number][] => {
      const value = values[index];
      return value === null || value === undefined ? [] : [[name, value]];
    });
    const name = new Date(Date.parse(from) + index * stepSeconds * 1000).toISOString().replace(".000Z", "Z");
    return { name, values: Object.fromEntries(values) };
  }).filter(({ values }) => Object.keys(values).length > 0);
}

function whole(value: number): string {
  return String(Math.round(value));
}
