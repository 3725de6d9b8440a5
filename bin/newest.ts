/** Releases of Synapse that nobody has tested yet: the newest on PyPI, and a newer candidate. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const CANDIDATE = /rc\d+$/;

/** @returns of the newest release and the newest candidate those that are newer than `tested`, the release first */
export function untested(published: readonly string[], tested: string): string[] {
  const newestFirst = published.toSorted((a, b) => compare(b, a));
  const release = newestFirst.find((version) => !CANDIDATE.test(version)) ?? tested;
  const candidate = newestFirst.find((version) => CANDIDATE.test(version)) ?? release;
  return [...new Set([release, ...(compare(candidate, release) > 0 ? [candidate] : [])])].filter(
    (version) => compare(version, tested) > 0,
  );
}

/** A candidate comes before its release. */
function compare(a: string, b: string): number {
  const [left, right] = [numbersOf(a), numbersOf(b)];
  return left.map((number, index) => number - (right[index] ?? 0)).find((difference) => difference !== 0) ?? 0;
}

function numbersOf(version: string): number[] {
  const [, major, minor, patch, candidate] = /^(\d+)\.(\d+)\.(\d+)(?:rc(\d+))?$/.exec(version) ?? [];
  return [major, minor, patch, candidate ?? "1000000"].map((part) => Number(part ?? 0));
}

/** @param python which has pip */
export async function publishedReleases(python: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)(python, ["-m", "pip", "index", "versions", "--pre", "matrix-synapse"]);
  const listed = /^\s*Available versions: (.*)$/m.exec(stdout)?.[1] ?? "";
  return listed.split(",").map((version) => version.trim());
}
