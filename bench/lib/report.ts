import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Surroundings } from "./machine.ts";
import { type BenchResult, type Figure, met } from "./result.ts";
import { drawPlot, format } from "./svg.ts";

export const RESULTS = resolve(import.meta.dirname, "../results");
/** Has the figures with targets between these lines. */
const PROJECT_README = resolve(import.meta.dirname, "../../README.md");
const BEGIN = "<!-- written by npm run bench -->";
const END = "<!-- end -->";

/** What is kept of one run of one part. */
export interface RunRecord {
  quick: boolean;
  seconds: number;
  surroundings: Surroundings;
  result: BenchResult;
}

/** Writes a part's figures and plots; those of its last run are replaced. */
export async function writeResult(record: RunRecord, directory = RESULTS): Promise<void> {
  await mkdir(directory, { recursive: true });
  const { name, plots } = record.result;
  for (const file of await readdir(directory)) {
    if (file.endsWith(".svg") && file.replace(/-\d+\.svg$/, "") === name) await rm(join(directory, file));
  }
  for (const [index, plot] of plots.entries()) await writeFile(join(directory, plotFile(name, index)), drawPlot(plot));
  await writeFile(join(directory, `${name}.json`), `${JSON.stringify(record, undefined, 1)}\n`);
}

/** Writes the table over all parts that have ever been run, in this order, and others after them. */
export async function writeTable(order: string[], directory = RESULTS): Promise<void> {
  const records: RunRecord[] = [];
  for (const file of await readdir(directory)) {
    if (file.endsWith(".json")) records.push(JSON.parse(await readFile(join(directory, file), "utf8")) as RunRecord);
  }
  const place = ({ result }: RunRecord) => (order.includes(result.name) ? order.indexOf(result.name) : order.length);
  const sorted = records.toSorted((a, b) => place(a) - place(b));
  await writeFile(join(directory, "README.md"), table(sorted));
  if (directory === RESULTS && !sorted.some(({ quick }) => quick))
    await writeFile(PROJECT_README, withSummary(await readFile(PROJECT_README, "utf8"), sorted));
}

/** The text with the figures that have targets between its two marks. @throws Error if the marks are not there */
export function withSummary(text: string, records: RunRecord[]): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`the README has no lines ${BEGIN} and ${END}`);
  const lines = ["| part | what | measured | to reach | |", "| --- | --- | ---: | ---: | --- |"];
  for (const { result } of records) {
    for (const { what, value, unit, target } of result.figures) {
      if (!target) continue;
      const bound = `${target.at === "most" ? "≤" : "≥"} ${format(target.value)}`;
      const verdict = met({ what, value, unit, target }) ? "✓" : "missed";
      lines.push(`| ${[result.name, what, `${format(value)} ${unit}`, bound, verdict].map(cell).join(" | ")} |`);
    }
  }
  return `${text.slice(0, begin + BEGIN.length)}\n${lines.join("\n")}\n${text.slice(end)}`;
}

/** The results as Markdown. */
export function table(records: RunRecord[]): string {
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

function runs(records: RunRecord[]): string[] {
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
