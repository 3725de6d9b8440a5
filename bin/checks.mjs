// Every check and test, after the set-up. With patterns, `vitest run PATTERN…` alone; --python: pytest alone; --kubernetes: the tests on a
// cluster alone; --set-up: nothing else. The tests on a cluster need KUBECONFIG, and BUILDER (tests/kubernetes/images/build) to bring images there.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { Steps } from "../src/platforms/local/up/steps.ts";
import {
  DEFAULT_RELEASE,
  ensurePostgres,
  ensureSynapse,
  ensureTestTools,
} from "../src/platforms/local/toolchain/toolchain.ts";
import { ensureActionlint } from "./actionlint.mjs";
import { ROOT } from "./bootstrap.mjs";

/** The release that upgrades are tested from; an earlier one that can read the same databases. */
const OLDER_RELEASE = "1.157.2";
/** One with an older schema, which is migrated; and one that cannot read the schema of the others, which is refused. */
const OTHER_SYNAPSES = ["1.150.0", "1.99.0"];
const RUNTIME = join(ROOT, "multi_synapse");

const args = process.argv.slice(2);
const { KUBECONFIG, BUILDER } = process.env;
/** What of the paths of tests says that they need a cluster. */
const ON_A_CLUSTER = ["kubernetes", "shards-cluster", "stack-cluster"];
const environment = {
  ...process.env,
  // Programs with `#!/usr/bin/env node` must meet this Node.
  PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}`,
};

try {
  const tools = await setUp();
  process.exitCode = args[0] === "--set-up" ? 0 : await run(chosen(tools));
} catch (error) {
  // A mistake that the user can fix has a message that says how; anything else is a bug.
  process.stderr.write(`error: ${error.name === "UserError" ? error.message : error.stack}\n`);
  process.exitCode = 1;
}

function chosen(tools) {
  if (args[0] === "--python") return [pytest(tools, args.slice(1))];
  if (args[0] === "--kubernetes") return onCluster();
  return args.length > 0 ? [vitest(args)] : everything(tools);
}

async function setUp() {
  const steps = new Steps();
  const newer = await steps.run(`Synapse ${DEFAULT_RELEASE}`, (onProgress) =>
    ensureSynapse(DEFAULT_RELEASE, { onProgress }),
  );
  const older = await steps.run(`Synapse ${OLDER_RELEASE}`, (onProgress) =>
    ensureSynapse(OLDER_RELEASE, { onProgress }),
  );
  for (const version of OTHER_SYNAPSES) {
    const { python } = await steps.run(`Synapse ${version}`, (onProgress) => ensureSynapse(version, { onProgress }));
    // Of them the first is the one that databases are migrated from.
    environment.MULTI_SYNAPSE_OLD_PYTHON ??= python;
  }
  const { binDir } = await steps.run("PostgreSQL's programs", (onProgress) => ensurePostgres({ onProgress }));
  const { python } = await steps.run("Test tools", (onProgress) => ensureTestTools({ onProgress }));
  // Where tests that start a server of their own look for its programs.
  Object.assign(environment, { SYNAPSE_SHARDS_PG_BIN: binDir, POSTGRES_BIN: binDir });
  const actionlint = await steps.run("actionlint (if Go is there)", async () => ensureActionlint());
  return { python, pythons: [newer.python, older.python], actionlint };
}

function everything({ python, pythons, actionlint }) {
  return [
    { title: "types (tsc)", command: npm("typescript", "tsc") },
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
    pytest({ python, pythons }, []),
    // Without the cluster, on which they would be in each other's way.
    { ...vitest([]), env: { KUBECONFIG: undefined } },
    ...onCluster(),
  ];
}

function workflows(actionlint) {
  if (actionlint) return [{ title: "workflows (actionlint)", command: [actionlint] }];
  process.stderr.write("Go is not there to build actionlint: the workflows are not checked\n");
  return [];
}

function onCluster() {
  if (!KUBECONFIG) {
    if (args[0] === "--kubernetes") throw new Error("KUBECONFIG is not set: name the cluster to test on");
    process.stderr.write("KUBECONFIG is not set: the tests on a Kubernetes cluster are skipped\n");
    return [];
  }
  const images = { title: "images for the cluster", command: [join(ROOT, "tests/kubernetes/images/build")] };
  const tests = vitest(["--no-file-parallelism", ...ON_A_CLUSTER]);
  return [...(BUILDER ? [images] : []), { ...tests, title: "tests on Kubernetes (vitest)" }];
}

function pytest({ python, pythons }, more) {
  return {
    title: "Python tests (pytest)",
    command: [python, "-m", "pytest", ...more],
    cwd: RUNTIME,
    env: { MULTI_SYNAPSE_PYTHON: pythons.join(":") },
  };
}

/** With `failures`, which names the tests that failed: a log of thousands of lines may reach its reader without its middle. */
function vitest(more) {
  const directory = mkdtempSync(join(tmpdir(), "vitest-"));
  const report = join(directory, "report.json");
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  return {
    title: "tests (vitest)",
    command: [...npm("vitest", "vitest"), "run", ...reporters, ...more],
    failures: () => failuresOf(report),
  };
}

function failuresOf(report) {
  let results;
  try {
    results = JSON.parse(readFileSync(report, "utf8")).testResults;
  } catch {
    return ["vitest left no report"];
  }
  return results.flatMap(({ name, status, message, assertionResults }) => {
    const file = relative(ROOT, name);
    const failed = assertionResults.filter((test) => test.status === "failed");
    if (status === "failed" && failed.length === 0) return [`${file}: ${firstLine(message)}`];
    return failed.map(({ fullName, failureMessages }) => `${file}: ${fullName}: ${firstLine(failureMessages[0])}`);
  });
}

function firstLine(text) {
  return (text ?? "").split("\n", 1)[0];
}

/** The program of an npm package, run with this Node. */
function npm(name, program) {
  const directory = join(ROOT, "node_modules", name);
  const { bin } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
  return [process.execPath, join(directory, typeof bin === "string" ? bin : bin[program])];
}

/** All of them, whatever the outcome of one; a summary at the end. @returns the exit code */
async function run(checks) {
  const results = [];
  for (const { title, command, cwd = ROOT, env, failures } of checks) {
    process.stderr.write(`\n── ${title}\n`);
    const startedAt = Date.now();
    const ok = (await exitCodeOf(command, { cwd, env: { ...environment, ...env } })) === 0;
    results.push({ title, ok, seconds: (Date.now() - startedAt) / 1000, failures: ok ? [] : (failures?.() ?? []) });
  }
  process.stderr.write("\n");
  for (const { title, ok, seconds, failures } of results) {
    process.stderr.write(`${ok ? "✓" : "✗"} ${title} (${seconds.toFixed(1)} s)\n`);
    for (const failure of failures) process.stderr.write(`    ${failure}\n`);
  }
  const failed = results.filter(({ ok }) => !ok).length;
  process.stdout.write(`checks: ${results.length - failed} passed, ${failed} failed\n`);
  return failed > 0 ? 1 : 0;
}

/** A signal is passed on, and ends the rest too. */
function exitCodeOf([program, ...programArgs], options) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, programArgs, { ...options, stdio: "inherit" });
    const forward = (signal) => {
      child.kill(signal);
      child.once("exit", () => process.exit(130));
    };
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, forward);
    child.once("error", reject);
    child.once("exit", (code) => {
      for (const signal of ["SIGINT", "SIGTERM"]) process.off(signal, forward);
      resolve(code ?? 1);
    });
  });
}
