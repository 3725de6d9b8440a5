/** `npm run bench -- --compare BASE`: another commit and this work tree in turn, round by round. */
import { spawn } from "node:child_process";
import { readFile, mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { table } from "../src/cli/output.ts";
import { ROOT } from "../src/model/project.ts";
import { onEnd } from "./lib/cleanup.ts";
import { compare, type Pair, type Row } from "./lib/comparison.ts";
import type { RunRecord } from "./lib/report.ts";
import type { Figure } from "./lib/result.ts";
import { format } from "./lib/svg.ts";

export interface Comparison {
  /** A commit, as git names it. */
  base: string;
  parts: string[];
  rounds: number;
  quick: boolean;
}

/** @returns a row for each figure that both sides have @throws Error which says what could not be run */
export async function runComparison({ base, parts, rounds, quick }: Comparison): Promise<Row[]> {
  const directory = await mkdtemp(join(tmpdir(), "synapse-shards-compare-"));
  onEnd(() => rm(directory, { recursive: true, force: true }));
  const tree = await checkOut(base, join(directory, "base"));
  const pairs: Pair[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const part of parts) {
      const figures = async (root: string) => {
        console.log(`\nround ${round + 1} of ${rounds}, ${part}, ${root === ROOT ? "this work tree" : base}`);
        return measure(root, part, quick, join(directory, "results"));
      };
      // The second of two may find a warmer or a more tired machine.
      const sides = round % 2 === 0 ? [tree, ROOT] : [ROOT, tree];
      const found = new Map<string, Figure[]>();
      for (const root of sides) found.set(root, await figures(root));
      pairs.push({ part, base: found.get(tree)!, head: found.get(ROOT)! });
    }
  }
  return compare(pairs);
}

export function picture(rows: Row[], base: string): string {
  const head = ["PART", "FIGURE", base.toUpperCase(), "NOW", "", "RATIO", "LEAST", "MOST", ""];
  const cells = rows.map(({ part, what, unit, base: before, head: now, ratio, verdict }) => {
    const ratios = ratio ? [ratio.median, ratio.least, ratio.most].map((value) => value.toFixed(2)) : ["-", "-", "-"];
    return [part, what, format(before), format(now), unit, ...ratios, verdict];
  });
  return table(head, cells);
}

async function checkOut(commit: string, directory: string): Promise<string> {
  await run("git", ["worktree", "add", "--detach", "--quiet", directory, commit], ROOT);
  onEnd(() => run("git", ["worktree", "remove", "--force", directory], ROOT));
  const lock = (root: string) => readFile(join(root, "package-lock.json"), "utf8");
  // With other packages, the first part that is run there installs them.
  if ((await lock(ROOT)) === (await lock(directory)))
    await symlink(join(ROOT, "node_modules"), join(directory, "node_modules"));
  return directory;
}

async function measure(root: string, part: string, quick: boolean, results: string): Promise<Figure[]> {
  await rm(results, { recursive: true, force: true });
  await mkdir(results, { recursive: true });
  const options = [...(quick ? ["--quick"] : []), "--out", results, part];
  await run(process.execPath, [join(root, "bin/run.mjs"), "bench/main.ts", ...options], root);
  const { result } = JSON.parse(await readFile(join(results, `${part}.json`), "utf8")) as RunRecord;
  return result.figures;
}

async function run(program: string, args: string[], cwd: string): Promise<void> {
  const child = spawn(program, args, { cwd, stdio: "inherit" });
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  child.once("error", reject);
  child.once("close", resolve);
  const code = await promise;
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}`);
}
