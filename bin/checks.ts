// Every check and test, after the set-up. With patterns, `vitest run PATTERN…` alone; --python: pytest alone; --kubernetes: the tests on a
// cluster alone; --newest-synapse: the Python tests with what PyPI has newer, as a warning; --set-up: nothing else. The tests on a cluster need KUBECONFIG, and BUILDER (tests/kubernetes/images/build) to bring images there.
import { readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { Steps } from "../src/platforms/local/up/steps.ts";
import {
  DEFAULT_RELEASE,
  ensurePostgres,
  ensureSynapse,
  ensureTestTools,
} from "../src/platforms/local/toolchain/toolchain.ts";
import { UserError } from "../src/model/errors.ts";
import { ROOT } from "../src/model/project.ts";
import { ensureConsole } from "../console/build.ts";
import { ensureActionlint } from "./actionlint.ts";
import { ensureGoTool, findGo, PEBBLE } from "./go-tools.ts";
import { publishedReleases, untested } from "./newest.ts";
import { type Check, type Outcome, pytestReport, runLanes, summarize, vitestReport } from "./run-checks.ts";

/** The release that upgrades are tested from: an earlier one that can read the same databases. */
const OLDER_RELEASE = "1.157.2";
/** A release with an older schema, which is migrated, and one that cannot read the others' schema and is refused. */
const OTHER_SYNAPSES = ["1.150.0", "1.99.0"];
const RUNTIME = join(ROOT, "multi_synapse");

/** Whole files at a time, so that a process starts what its tests share once; the slow ones are first (conftest.py). */
const IN_TWO = ["--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder"];

const args = process.argv.slice(2);
const { KUBECONFIG, BUILDER } = process.env;
/** Tests of pure functions, and of the controller on fakes: nothing in them can race, so a failure is one. */
const DETERMINISTIC = /^tests\/(model|planner|rollout|controller)\//;
/** Parts of the paths of tests that need a cluster. */
const ON_A_CLUSTER = ["kubernetes", "shards-cluster", "stack-cluster"];
const environment: Record<string, string | undefined> = {
  ...process.env,
  NODE_COMPILE_CACHE: join(ROOT, "node_modules/.cache/node-compile"),
  // Programs with `#!/usr/bin/env node` must find this Node.
  PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}`,
};

try {
  const tools = await setUp();
  const results: Outcome[] = [];
  const isWarning = args[0] === "--newest-synapse";
  const stages = isWarning ? [[await withNewestSynapse(tools)]] : args[0] === "--set-up" ? [] : chosen(tools);
  for (const lanes of stages) results.push(...(await runLanes(lanes, environment)));
  const code = results.length > 0 ? summarize(results) : 0;
  // The annotation of a workflow; the run itself does not fail.
  if (isWarning && code !== 0) process.stdout.write("::warning::the runtime's tests fail with a newer Synapse\n");
  process.exitCode = isWarning ? 0 : code;
} catch (error) {
  // A mistake that the user can fix has a message that says how; anything else is a bug.
  process.stderr.write(`error: ${error instanceof UserError ? error.message : String((error as Error).stack)}\n`);
  process.exitCode = 1;
}

/** @returns stages, each of lanes that run beside each other, each of checks that run one after the other */
function chosen(tools: Tools): Check[][][] {
  if (args[0] === "--python") return [[[once(pytest(tools, args.slice(1)))]]];
  if (args[0] === "--kubernetes") return [[[...images(), ...onCluster()]]];
  if (args.length > 0) return [[[once(vitest(args))]]];
  // Python tests mostly wait for one process, TypeScript tests for several: together they use both cores. Neither meets the cluster, on
  // which they would be in each other's way; the images are made by who is done first.
  return [[[...withoutRunning(tools), pytest(tools, []), ...images()], [withoutCluster(vitest([]))]], [onCluster()]];
}

interface Tools {
  /** The default release's, with pytest, ruff and mypy. */
  python: string;
  /** Those of the releases that the Python tests run with. */
  pythons: string[];
  actionlint?: string;
}

async function setUp(): Promise<Tools> {
  const steps = new Steps();
  const newer = await steps.run(`Synapse ${DEFAULT_RELEASE}`, (onProgress) =>
    ensureSynapse(DEFAULT_RELEASE, { onProgress }),
  );
  const older = await steps.run(`Synapse ${OLDER_RELEASE}`, (onProgress) =>
    ensureSynapse(OLDER_RELEASE, { onProgress }),
  );
  for (const version of OTHER_SYNAPSES) {
    const { python } = await steps.run(`Synapse ${version}`, (onProgress) => ensureSynapse(version, { onProgress }));
    // Databases are migrated from the first of them.
    environment.MULTI_SYNAPSE_OLD_PYTHON ??= python;
  }
  const { binDir } = await steps.run("PostgreSQL's programs", (onProgress) => ensurePostgres({ onProgress }));
  const { python } = await steps.run("Test tools", (onProgress) => ensureTestTools({ onProgress }));
  // Tests that start their own server look for its programs here.
  Object.assign(environment, { SYNAPSE_SHARDS_PG_BIN: binDir, POSTGRES_BIN: binDir });
  await steps.run("Console", () => ensureConsole());
  const actionlint = await steps.run("actionlint (if Go is there)", async () => ensureActionlint());
  await steps.run("Pebble, an ACME server", (onProgress) => pebble(onProgress));
  return { python, pythons: [newer.python, older.python], actionlint };
}

/** Without it, the tests with a real ACME server are skipped, and say so. */
async function pebble(onProgress: (step: string) => void): Promise<void> {
  try {
    environment.PEBBLE = ensureGoTool(PEBBLE, await findGo({ onProgress }));
  } catch (error) {
    process.stderr.write(`tests with a real ACME server are skipped: ${(error as Error).message}\n`);
  }
}

function withoutRunning({ python, actionlint }: Tools): Check[] {
  return [
    { title: "types (tsc)", command: npm("typescript", "tsc") },
    // Written each time, so that the console's types are those of the API's document.
    { title: "the API's types for the console", command: [process.execPath, "console/generate-types.ts"] },
    { title: "types of the console (tsc)", command: [...npm("typescript", "tsc"), "-p", "console"] },
    { title: "lint (oxlint)", command: npm("oxlint", "oxlint") },
    {
      title: "folder rules (dependency-cruiser)",
      command: [...npm("dependency-cruiser", "depcruise"), "--config", ".dependency-cruiser.mjs", "src"],
    },
    { title: "format (oxfmt)", command: [...npm("oxfmt", "oxfmt"), "--check"] },
    { title: "Markdown (markdownlint)", command: npm("markdownlint-cli2", "markdownlint-cli2") },
    ...workflows(actionlint),
    { title: "Python lint (ruff)", command: [python, "-m", "ruff", "check", "."], cwd: RUNTIME },
    { title: "Python types (mypy)", command: [python, "-m", "mypy", "-p", "multi_synapse"], cwd: RUNTIME },
  ];
}

/** A release that this project does not run yet: what fails says what is to be done before it does. */
async function withNewestSynapse(tools: Tools): Promise<Check[]> {
  const versions = untested(await publishedReleases(tools.python), DEFAULT_RELEASE);
  if (versions.length === 0) {
    process.stderr.write(`PyPI has nothing newer than Synapse ${DEFAULT_RELEASE}\n`);
    return [];
  }
  const steps = new Steps();
  const pythons: string[] = [];
  for (const version of versions) {
    const { python } = await steps.run(`Synapse ${version}`, (onProgress) => ensureSynapse(version, { onProgress }));
    pythons.push(python);
  }
  const check = pytest({ ...tools, pythons }, args.slice(1));
  return [
    {
      ...check,
      title: `Python tests with Synapse ${versions.join(" and ")} (pytest)`,
      env: { ...check.env, MULTI_SYNAPSE_UNTESTED: versions.join(",") },
    },
  ];
}

function workflows(actionlint: string | undefined): Check[] {
  if (actionlint) return [{ title: "workflows (actionlint)", command: [actionlint] }];
  process.stderr.write("Go is not there to build actionlint: the workflows are not checked\n");
  return [];
}

/** Those of the tests on a cluster, where something is given that brings them there. */
function images(): Check[] {
  if (!KUBECONFIG || !BUILDER) return [];
  return [{ title: "images for the cluster", command: [join(ROOT, "tests/kubernetes/images/build")] }];
}

function onCluster(): Check[] {
  if (!KUBECONFIG) {
    if (args[0] === "--kubernetes") throw new Error("KUBECONFIG is not set: name the cluster to test on");
    process.stderr.write("KUBECONFIG is not set: the tests on a Kubernetes cluster are skipped\n");
    return [];
  }
  const tests = vitest(ON_A_CLUSTER, ["--no-file-parallelism"]);
  return [{ ...tests, title: "tests on Kubernetes (vitest)" }];
}

function withoutCluster({ again, ...check }: Check): Check {
  const without = (other: Check) => ({ ...other, env: { ...other.env, KUBECONFIG: undefined } });
  return {
    ...without(check),
    again: (failed) => {
      const second = again?.(failed);
      return second && without(second);
    },
  };
}

/** As somebody asked for it who watches it. */
function once(check: Check): Check {
  return { ...check, again: undefined };
}

function pytest({ python, pythons }: Tools, more: string[]): Check {
  const { args: reporting, report } = pytestReport();
  return {
    title: "Python tests (pytest)",
    command: [python, "-m", "pytest", ...IN_TWO, ...reporting, ...more],
    cwd: RUNTIME,
    env: { MULTI_SYNAPSE_PYTHON: pythons.join(":") },
    report,
    again: (failed) => pytest({ python, pythons }, failed),
  };
}

function vitest(files: string[], options: string[] = []): Check {
  const { args: reporting, env, report } = vitestReport();
  return {
    title: "tests (vitest)",
    command: [...npm("vitest", "vitest"), "run", ...reporting, ...options, ...files],
    env,
    report,
    again: (failed) => (failed.some((file) => DETERMINISTIC.test(file)) ? undefined : vitest(failed, options)),
  };
}

/** The program of an npm package, run with this Node. */
function npm(name: string, program: string): string[] {
  const directory = join(ROOT, "node_modules", name);
  const { bin } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
  return [process.execPath, join(directory, typeof bin === "string" ? bin : bin[program])];
}
