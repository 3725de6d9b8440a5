/** `npm run bench`: runs the parts of the suite one after another and writes bench/results/. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { picture, runComparison } from "./compare.ts";
import { cleanUp } from "./lib/cleanup.ts";
import { surroundings } from "./lib/machine.ts";
import { RESULTS, writeResult, writeTable } from "./lib/report.ts";
import { type Bench, type BenchResult, met } from "./lib/result.ts";
import { format } from "./lib/svg.ts";

/** In this order; each is a module of this name with a `bench`. */
const PARTS = [
  "memory",
  "start",
  "leak",
  "moves",
  "peers",
  "latency",
  "servers",
  "neighbours",
  "isolated",
  "gateway",
  "polls",
  "sleep",
  "crash",
  "fleet",
  "planner",
  "controller",
  "kubernetes",
];
const USAGE = 2;

const HELP = `npm run bench -- [options] [part ...]

Runs parts of the benchmark suite (all if none is named) and writes bench/results/: a JSON file and plots for each part,
and README.md with the table. Run it on a quiet machine; bench/README.md says what is compared with what.

parts: ${PARTS.join(", ")}

  --quick       small versions, to see that they work; the figures are not for quoting
  --out DIR     write there instead of bench/results
  --compare REV measure that commit and this work tree in turn, and print what differs; writes no results
  --rounds N    of a comparison, 1 to 100 (default: 5)
  --list        name the parts with what they measure
  --help        this text
`;

async function main(): Promise<number> {
  const { values, positionals } = parse();
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const unknown = positionals.find((name) => !PARTS.includes(name));
  if (unknown !== undefined) return usage(`there is no part ${unknown}; there are ${PARTS.join(", ")}`);
  if (values.compare !== undefined) return runCompared(values.compare, positionals, values.rounds, values.quick);
  const benches: Bench[] = [];
  for (const name of positionals.length > 0 ? PARTS.filter((part) => positionals.includes(part)) : PARTS) {
    const file = join(import.meta.dirname, `${name}.ts`);
    if (existsSync(file)) benches.push(((await import(file)) as { bench: Bench }).bench);
    else if (positionals.includes(name)) return usage(`the part ${name} is not in this checkout`);
  }
  if (values.list) {
    for (const { name, title } of benches) console.log(`${name.padEnd(12)}${title}`);
    return 0;
  }
  let failed = 0;
  for (const bench of benches) if (!(await runPart(bench, values.quick, values.out))) failed += 1;
  await writeTable(PARTS, values.out);
  console.log(`\nThe table is in ${join(values.out, "README.md")}`);
  return failed > 0 ? 1 : 0;
}

async function runCompared(base: string, parts: string[], given: string, quick: boolean): Promise<number> {
  const rounds = Number(given);
  if (!/^\d+$/.test(given) || rounds < 1 || rounds > 100) return usage(`--rounds is a whole number from 1 to 100`);
  if (parts.length === 0)
    return usage("--compare needs the parts to compare: each takes both sides' time in each round");
  try {
    const rows = await runComparison({ base, parts, rounds, quick });
    console.log(`\n${picture(rows, base)}`);
    return 0;
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    return 1;
  } finally {
    await cleanUp();
  }
}

/** @returns whether it could be measured; a missed target is a result, not a failure */
async function runPart(bench: Bench, quick: boolean, directory: string): Promise<boolean> {
  console.log(`\n${bench.name}: ${bench.title}`);
  const begun = performance.now();
  const seconds = () => (performance.now() - begun) / 1000;
  try {
    const on = await surroundings();
    const result = await bench.run({
      quick,
      log: (line) => console.log(`  ${`${seconds().toFixed(0)} s`.padStart(6)}  ${line}`),
    });
    await writeResult({ quick, seconds: seconds(), surroundings: on, result }, directory);
    print(result);
    return true;
  } catch (error) {
    console.error(`${bench.name} could not be measured:`, error);
    return false;
  } finally {
    await cleanUp();
  }
}

function print(result: BenchResult): void {
  for (const figure of result.figures) {
    const verdict = met(figure);
    const mark = verdict === undefined ? " " : verdict ? "✓" : "✗";
    const bound = figure.target ? `  (${figure.target.at === "most" ? "≤" : "≥"} ${format(figure.target.value)})` : "";
    console.log(`  ${mark} ${figure.what}: ${format(figure.value)} ${figure.unit}${bound}`);
  }
}

function parse() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: "boolean", default: false },
        list: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
        out: { type: "string", default: RESULTS },
        compare: { type: "string" },
        rounds: { type: "string", default: "5" },
      },
    });
  } catch (error) {
    process.exit(usage((error as Error).message));
  }
}

function usage(problem: string): number {
  console.error(`${problem}\n\n${HELP}`);
  return USAGE;
}

process.exitCode = await main();
