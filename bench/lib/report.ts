import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Surroundings } from "./machine.ts";
import { type BenchResult, type Figure, met } from "./result.ts";
import { drawPlot, format } from "./svg.ts";

export const RESULTS = resolve(import.meta.dirname, "../results");
/** Every sample of the last runs. Too large for the repository: each machine keeps its own. */
const SAMPLES = resolve(import.meta.dirname, "../samples");
/** Contains the figures with targets, between the marks below. */
const BENCH_README = resolve(import.meta.dirname, "../README.md");
const BEGIN = "<!-- written by npm run bench -->";
const END = "<!-- end -->";
/** Contains the headlines, between marks of the same kind. */
const PROJECT_README = resolve(import.meta.dirname, "../../README.md");
/** The figures that a newcomer asks for first: the part, its own name for the figure, and words that need no explanation. */
const HEADLINES: [part: string, what: string, words: string][] = [
  ["memory", "each tenant, empty", "memory of an idle tenant"],
  [
    "memory",
    "memory of 25 idle tenants in 1 shard, of dedicated processes",
    "memory of 25 idle tenants in one shard, against dedicated processes",
  ],
  [
    "memory",
    "processor time of an idle tenant, of a dedicated idle process's",
    "processor time of an idle tenant, against a dedicated process",
  ],
  ["start", "`tenant create` to the first answered request, p50", "`tenant create` to the first answered request, p50"],
  ["moves", "blackout, p50", "a move under load: time in which neither shard serves, p50"],
  ["moves", "failed requests, as the clients count", "1,000 moves under load: failed requests"],
  [
    "latency",
    "send with 24 idle neighbours, p50, against a dedicated process",
    "sending a message beside 24 idle neighbours, p50, against a dedicated process",
  ],
  ["gateway", "gateway: added latency at half load, p50", "latency added by the gateway at half load, p50"],
  ["planner", "full plan, 100000 tenants on 4000 shards, p50", "a full plan for 100,000 tenants on 4,000 shards, p50"],
];

/** One run of one part. */
export interface RunRecord {
  quick: boolean;
  seconds: number;
  surroundings: Surroundings;
  result: BenchResult;
}

/** What the repository keeps of a run: no samples, and only the titles of plots, which are files of their own. */
export type RunSummary = Omit<RunRecord, "result"> & {
  result: Pick<BenchResult, "name" | "title" | "figures"> & { plots: { title: string }[] };
};

/** Writes a part's summary, plots and samples; those of its last run are replaced. */
export async function writeResult(record: RunRecord, directory = RESULTS): Promise<void> {
  const samples = directory === RESULTS ? SAMPLES : join(directory, "samples");
  await mkdir(directory, { recursive: true });
  await mkdir(samples, { recursive: true });
  const { name, plots } = record.result;
  for (const file of await readdir(directory)) {
    if (file.endsWith(".svg") && file.replace(/-\d+\.svg$/, "") === name) await rm(join(directory, file));
  }
  for (const [index, plot] of plots.entries()) await writeFile(join(directory, plotFile(name, index)), drawPlot(plot));
  await writeFile(join(directory, `${name}.json`), `${JSON.stringify(summaryOf(record), undefined, 1)}\n`);
  await writeFile(join(samples, `${name}.json`), `${JSON.stringify(record)}\n`);
}

/** @returns what the repository keeps of a run */
export function summaryOf({ result: { name, title, figures, plots }, ...run }: RunRecord): RunSummary {
  return { ...run, result: { name, title, figures, plots: plots.map((plot) => ({ title: plot.title })) } };
}

/** Writes the table over all parts that have ever been run, in this order, and others after them. */
export async function writeTable(order: string[], directory = RESULTS): Promise<void> {
  const records: RunSummary[] = [];
  for (const file of await readdir(directory)) {
    if (file.endsWith(".json")) records.push(JSON.parse(await readFile(join(directory, file), "utf8")) as RunSummary);
  }
  const place = ({ result }: RunSummary) => (order.includes(result.name) ? order.indexOf(result.name) : order.length);
  const sorted = records.toSorted((a, b) => place(a) - place(b));
  await writeFile(join(directory, "README.md"), table(sorted));
  if (directory !== RESULTS || sorted.some(({ quick }) => quick)) return;
  await writeFile(BENCH_README, withSummary(await readFile(BENCH_README, "utf8"), sorted));
  await writeFile(PROJECT_README, withHeadlines(await readFile(PROJECT_README, "utf8"), sorted));
}

/** The text with the figures that have targets between its two marks. @throws Error if the marks are not there */
export function withSummary(text: string, records: RunSummary[]): string {
  const lines = ["| part | what | measured | to reach | |", "| --- | --- | ---: | ---: | --- |"];
  for (const { result } of records) {
    for (const { what, value, unit, target } of result.figures) {
      if (!target) continue;
      const bound = `${target.at === "most" ? "≤" : "≥"} ${format(target.value)}`;
      const verdict = met({ what, value, unit, target }) ? "✓" : "missed";
      lines.push(`| ${[result.name, what, `${format(value)} ${unit}`, bound, verdict].map(cell).join(" | ")} |`);
    }
  }
  return between(text, lines);
}

/** The text with the headlines between its two marks. @throws Error if the marks, or one of the figures, are not there */
export function withHeadlines(text: string, records: RunSummary[]): string {
  const lines = ["| what | measured |", "| --- | ---: |"];
  for (const [part, what, words] of HEADLINES) {
    const { figures } = records.find(({ result }) => result.name === part)?.result ?? { figures: [] };
    const figure = figures.find((candidate) => candidate.what === what);
    if (!figure) throw new Error(`the part ${part} has no figure "${what}", which the README quotes`);
    lines.push(`| ${[words, `${format(figure.value)} ${figure.unit}`].map(cell).join(" | ")} |`);
  }
  return between(text, lines);
}

function between(text: string, lines: string[]): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`the README has no lines ${BEGIN} and ${END}`);
  return `${text.slice(0, begin + BEGIN.length)}\n\n${lines.join("\n")}\n\n${text.slice(end)}`;
}

/** The results as Markdown. */
export function table(records: RunSummary[]): string {
  const lines = [
    "# Results",
    "",
    "Written by `npm run bench`; [how to repeat it, and what is compared with what](../README.md).",
    "",
  ];
  if (records.some(({ quick }) => quick))
    lines.push("**Parts marked _quick_ were run small, to see that they work: not for quoting.**", "");
  for (const { result, quick } of records) {
    lines.push(
      `## ${result.title}${quick ? " _(quick)_" : ""}`,
      "",
      "| what | measured | target | met |",
      "| --- | --- | --- | --- |",
    );
    for (const figure of result.figures) lines.push(row(figure));
    lines.push("");
    for (const [index, plot] of result.plots.entries())
      lines.push(`![${plot.title}](${plotFile(result.name, index)})`, "");
  }
  return `${[...lines, "## Machine and versions", "", ...runs(records)].join("\n")}\n`;
}

function row(figure: Figure): string {
  const { what, value, unit, target, note } = figure;
  const verdict = met(figure);
  const bound = target ? `${target.at === "most" ? "≤" : "≥"} ${format(target.value)} ${unit}` : "";
  const measured = `**${format(value)}** ${unit}${note ? `<br>${note}` : ""}`;
  return `| ${[what, measured, bound, verdict === undefined ? "shown" : verdict ? "yes" : "**no**"].map(cell).join(" | ")} |`;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

function runs(records: RunSummary[]): string[] {
  const lines = ["| part | date | commit | took | machine | versions |", "| --- | --- | --- | --- | --- | --- |"];
  for (const { result, seconds, surroundings: on, quick } of records) {
    const machine = `${on.cpu}, ${on.cores} cores, ${on.memoryGiB} GiB, Linux ${on.kernel}`;
    const versions = `Synapse ${on.synapse}, Python ${on.python}, PostgreSQL ${on.postgres}, Node ${on.node.replace(/^v/, "")}`;
    const date = on.date.slice(0, 16).replace("T", " ");
    lines.push(
      `| ${[result.name + (quick ? " (quick)" : ""), `${date} UTC`, on.commit, `${Math.round(seconds)} s`, machine, versions].map(cell).join(" | ")} |`,
    );
  }
  return lines;
}

function plotFile(name: string, index: number): string {
  return `${name}-${index + 1}.svg`;
}
