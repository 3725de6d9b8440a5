/** Runs checks, and says at the end how they went. */
import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../src/model/project.ts";
import { REPORT_PATH } from "./vitest-reporter.ts";

type Environment = Record<string, string | undefined>;

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** What a test runner's own report says: how many tests, and which failed. */
export interface Report {
  counts?: Counts;
  failures?: string[];
  /** What failed, as the runner is told to run it alone; empty where something failed that cannot be run alone. */
  failed?: string[];
}

export interface Check {
  title: string;
  command: string[];
  cwd?: string;
  env?: Environment;
  report?: () => Report;
  /** The check of only what failed, where it may be run again. */
  again?: ((failed: string[]) => Check | undefined) | undefined;
}

export interface Outcome extends Report {
  title: string;
  ok: boolean;
  seconds: number;
  /** Failures that were none when run again. */
  flaky?: string[];
}

/** More failures at once than a race makes are not run again. */
const MOST_AGAIN = 3;

/** A signal ends all that runs. */
const running = new Set<ChildProcess>();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    for (const child of running) child.kill(signal);
    process.exitCode = 130;
  });
}

/**
 * Runs the lanes beside each other, the checks of a lane one after another, whatever their outcome. The output of the
 * last lane is passed through, that of a check in another lane is shown when the check has ended.
 * @returns what came of each check
 */
export async function runLanes(lanes: Check[][], environment: Environment): Promise<Outcome[]> {
  const outcomes = await Promise.all(
    lanes.map(async (checks, index) => {
      const results: Outcome[] = [];
      for (const check of checks) results.push(await runTwice(check, environment, index === lanes.length - 1));
      return results;
    }),
  );
  return outcomes.flat();
}

/**
 * Real processes race: on a busy machine, one of thousands of tests may fail that has nothing to do with the change. It is run once more,
 * without the others. If it passes then, it is named as flaky, and the run goes on.
 */
async function runTwice(check: Check, environment: Environment, live: boolean): Promise<Outcome> {
  const first = await runOne(check, environment, live);
  const { failed = [], failures = [], counts, seconds } = first;
  if (first.ok || process.exitCode === 130 || failed.length === 0 || failed.length > MOST_AGAIN) return first;
  const again = check.again?.(failed);
  if (!again) return first;
  process.stderr.write(`\n${check.title}: run again: ${failed.join(" ")}\n`);
  const second = await runOne(again, environment, live);
  const both = { ...first, seconds: seconds + second.seconds };
  if (!second.ok) return both;
  const { passed, skipped } = counts ?? { passed: 0, skipped: 0 };
  const missed = counts?.failed ?? 0;
  return { ...both, ok: true, counts: { passed: passed + missed, failed: 0, skipped }, failures: [], flaky: failures };
}

async function runOne(check: Check, environment: Environment, live: boolean): Promise<Outcome> {
  const { title, command, cwd = ROOT, env, report } = check;
  if (live) process.stderr.write(`\n── ${title}\n`);
  const startedAt = performance.now();
  const { code, output } = await exitCodeOf(command, { cwd, env: { ...environment, ...env } }, live);
  if (!live) process.stderr.write(`\n── ${title}\n${output}`);
  const ok = code === 0 && process.exitCode !== 130;
  return { title, ok, seconds: (performance.now() - startedAt) / 1000, ...report?.() };
}

function exitCodeOf(
  [program = "", ...args]: string[],
  options: SpawnOptions,
  live: boolean,
): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: live ? "inherit" : ["ignore", "pipe", "pipe"] });
    running.add(child);
    const chunks: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.once("error", reject);
    child.once("close", (code) => {
      running.delete(child);
      resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString() });
    });
  });
}

/** Sums up at the end, where nothing is lost in a long log. The last line has the number of tests. @returns the exit code */
export function summarize(results: Outcome[]): number {
  process.stderr.write("\n");
  const total: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const { title, ok, seconds, counts, failures = [], flaky = [] } of results) {
    const counted = counts ? `, ${counts.passed} tests` : "";
    process.stderr.write(`${ok ? "✓" : "✗"} ${title} (${seconds.toFixed(1)} s${counted})\n`);
    for (const failure of failures) process.stderr.write(`    ${failure}\n`);
    for (const failure of flaky) process.stderr.write(`    flaky, passed when run again: ${failure}\n`);
    for (const key of ["passed", "failed", "skipped"] as const) total[key] += counts?.[key] ?? 0;
    // A check that failed without a failed test.
    if (!ok && !counts?.failed) total.failed += 1;
  }
  const failed = results.filter(({ ok }) => !ok).length;
  process.stderr.write(`${results.length - failed} of ${results.length} checks passed\n`);
  process.stdout.write(`tests: ${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
  return Number(process.exitCode) || (failed > 0 ? 1 : 0);
}

/** @returns the arguments and the environment with which vitest leaves a report, and `report` to read it */
export function vitestReport(): { args: string[]; env: Environment; report: () => Report } {
  const path = join(temporaryDirectory(), "report.json");
  return {
    args: ["--reporter=default", `--reporter=${join(ROOT, "bin/vitest-reporter.ts")}`],
    env: { [REPORT_PATH]: path },
    report: () => parsed(path, (text) => JSON.parse(text) as Report) ?? { failures: ["vitest left no report"] },
  };
}

/** @returns the same for pytest */
export function pytestReport(): { args: string[]; report: () => Report } {
  const path = join(temporaryDirectory(), "report.xml");
  return {
    args: [`--junitxml=${path}`],
    report: () => {
      const text = parsed(path, (content) => content);
      const suite = /<testsuite [^>]*>/.exec(text ?? "")?.[0];
      if (text === undefined || !suite) return { failures: ["pytest left no report"] };
      const count = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(suite)?.[1] ?? 0);
      const bad = count("failures") + count("errors");
      const skipped = count("skipped");
      const failures = failuresOf(text);
      return {
        counts: { passed: count("tests") - bad - skipped, failed: bad, skipped },
        failures: failures.map(({ test, message }) => `${test}: ${message}`),
        failed: [...new Set(failures.map(({ test }) => test))],
      };
    },
  };
}

/** Of JUnit's XML, as pytest writes it: `tests.test_a` and `test_b[c]` are `tests/test_a.py::test_b[c]`. */
function failuresOf(xml: string): { test: string; message: string }[] {
  const pattern = /<testcase classname="([^"]*)" name="([^"]*)"[^>]*>\s*<(?:failure|error) message="([^"]*)"/g;
  return [...xml.matchAll(pattern)].map(([, file = "", name = "", message = ""]) => ({
    test: `${file.replaceAll(".", "/")}.py::${unescaped(name)}`,
    message: unescaped(message).split("\n", 1)[0] ?? "",
  }));
}

function unescaped(text: string): string {
  const entities: Record<string, string> = {
    lt: "<",
    gt: ">",
    quot: '"',
    apos: "'",
    amp: "&",
    "#10": "\n",
    "#9": "\t",
  };
  return text.replaceAll(/&([^;]*);/g, (whole, name: string) => entities[name] ?? whole);
}

function parsed<T>(path: string, parse: (text: string) => T): T | undefined {
  try {
    return parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "synapse-shards-checks-"));
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
