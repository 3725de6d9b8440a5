/** Writes what bin/run-checks.ts sums up. Vitest's own JSON leaves out why a suite could not begin or end. */
import { writeFileSync } from "node:fs";
import { relative } from "node:path";
import type { Reporter, SerializedError, TestModule, Vitest } from "vitest/node";
import type { Report } from "./run-checks.ts";

/** Names the file to write. */
export const REPORT_PATH = "SYNAPSE_SHARDS_TEST_REPORT";
/** One line each, as they stand in a list. */
const LONGEST = 600;

export default class FailureReporter implements Reporter {
  #root = process.cwd();

  onInit({ config }: Vitest): void {
    this.#root = config.root;
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (...states: string[]) => tests.filter((test) => states.includes(test.result().state)).length;
    const report: Report = {
      counts: { passed: count("passed"), failed: count("failed"), skipped: count("skipped", "pending") },
      failures: [...modules.flatMap((module) => this.#failuresOf(module)), ...unhandled.map(oneLine)],
      // Who threw what nobody caught is not known.
      failed:
        unhandled.length > 0 ? [] : modules.filter((module) => !module.ok()).map((module) => this.#pathOf(module)),
    };
    const path = process.env[REPORT_PATH];
    if (path !== undefined) writeFileSync(path, JSON.stringify(report));
  }

  #pathOf({ moduleId }: TestModule): string {
    return relative(this.#root, moduleId);
  }

  #failuresOf(module: TestModule): string[] {
    const file = this.#pathOf(module);
    const inside = [...module.children.allSuites(), ...module.children.allTests()].flatMap((part) => {
      const errors = part.type === "suite" ? part.errors() : (part.result().errors ?? []);
      return errors.map((error) => `${part.fullName.replaceAll(" > ", " ")}: ${oneLine(error)}`);
    });
    return [...module.errors().map(oneLine), ...inside].map((failure) => `${file}: ${failure}`);
  }
}

/** A command's message has what the command said on its further lines. */
function oneLine({ message, name }: { message?: string; name?: string }): string {
  const text = (message ?? "")
    .split(/\s*\n\s*/)
    .join(" ")
    .trim();
  if (text === "") return name ?? "failed without a message";
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
