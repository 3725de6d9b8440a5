import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf, UserError } from "../../../model/errors.ts";
import { makeDirectory } from "../files.ts";
import { waitForLock } from "../up/lock.ts";
import { explainPipFailure } from "./pip-failure.ts";
import { pipEnvironment, pythonEnvironment } from "../environment.ts";
import { findPython, type Python } from "./python.ts";
import { runCommand } from "./run-command.ts";

export interface Progress {
  onProgress?: (step: string) => void;
  signal?: AbortSignal;
}

export interface EnvironmentSpec {
  directory: string;
  /** What is being installed, in words for progress lines. */
  title: string;
  /** Each is one `pip install` with these arguments, in order. */
  installs: readonly (readonly string[])[];
  /**
   * A list of all packages with versions and hashes, which is installed instead. An environment in which everything is there already is left as it
   * is: what runs in it must not change under it.
   */
  lockFile?: string;
  /** A Python program that imports what must be there and prints one line of JSON: the facts. */
  check: string;
  /** Judges what `check` printed; throws if it is not what was wanted. */
  parse?: (facts: unknown) => void;
  /** The release that a user may have misspelt. */
  release?: { name: string; version: string };
  /** A second set of packages in one environment has a stamp of its own. */
  stamp?: string;
}

interface Stamp {
  packages: string;
  facts: unknown;
}

/**
 * Makes a virtual environment once, or finds it made. A stamp is written last; an environment that is marked as begun and has
 * none was interrupted and is made again (it cannot be made elsewhere and renamed: its scripts have its path in them). One
 * with neither mark nor stamp was made by hand: it is taken as it is if all imports work.
 * @throws UserError Environment, UnknownRelease
 */
export async function ensureVirtualEnvironment(
  spec: EnvironmentSpec,
  progress: Progress,
): Promise<{ python: string; facts: unknown }> {
  const python = join(spec.directory, "bin/python");
  const done = await readStamp(spec);
  if (done) return { python, facts: done.facts };
  try {
    makeDirectory(dirname(spec.directory), 0o755);
  } catch (error) {
    const where = dirname(spec.directory);
    throw new UserError(
      "Environment",
      `cannot make the directory ${where}: ${messageOf(error)}; name another one in SYNAPSE_SHARDS_CACHE`,
    );
  }
  const onWait = (pid?: number) =>
    progress.onProgress?.(`another process${pid ? ` (${pid})` : ""} installs ${spec.title}; waiting for it`);
  const lock = await waitForLock(`${spec.directory}.lock`, { signal: progress.signal, onWait });
  try {
    const doneMeanwhile = await readStamp(spec);
    if (doneMeanwhile) return { python, facts: doneMeanwhile.facts };
    const facts = (await adopt(spec, progress)) ?? (await install(spec, progress));
    await writeStamp(spec, { packages: fingerprint(spec), facts });
    return { python, facts };
  } finally {
    lock.release();
  }
}

async function adopt(spec: EnvironmentSpec, progress: Progress): Promise<unknown> {
  if (!existsSync(join(spec.directory, "bin/python")) || existsSync(begunFile(spec)) || existsSync(stampFile(spec)))
    return undefined;
  progress.onProgress?.(`checking ${spec.title}`);
  return check(spec, progress).catch((error: unknown) => {
    progress.signal?.throwIfAborted();
    if (error instanceof UserError) return undefined;
    throw error;
  });
}

async function install(spec: EnvironmentSpec, progress: Progress): Promise<unknown> {
  const base = await findPython(progress.signal);
  // An addition to an environment, or packages that changed, must not take it away from those that run in it.
  const keep =
    spec.stamp !== undefined || (existsSync(stampFile(spec)) && existsSync(join(spec.directory, "bin/python")));
  if (!keep) await rm(spec.directory, { recursive: true, force: true });
  if (!existsSync(join(spec.directory, "bin/python"))) {
    makeDirectory(spec.directory, 0o755);
    await writeFile(begunFile(spec), "");
    progress.onProgress?.(`making a virtual environment for ${spec.title}`);
    const more = base.pip === "own" ? ["--without-pip"] : [];
    const { code, lines } = await runWithOpenUmask(base.program, ["-m", "venv", ...more, spec.directory], progress);
    if (code !== 0)
      throw new UserError(
        "Environment",
        `${base.program} cannot make a virtual environment in ${spec.directory}: ${lines.at(-1) ?? ""}`,
      );
  }
  await writeFile(begunFile(spec), "");
  try {
    const installs =
      spec.lockFile === undefined ? spec.installs : [["--no-deps", "--require-hashes", "--requirement", spec.lockFile]];
    for (const packages of installs) await pipInstall(spec, base, packages, progress);
  } catch (error) {
    // A release that does not exist leaves nothing behind.
    if (!keep && error instanceof UserError && error.code === "UnknownRelease")
      await rm(spec.directory, { recursive: true, force: true });
    throw error;
  }
  progress.onProgress?.(`checking ${spec.title}`);
  return check(spec, progress);
}

async function pipInstall(
  spec: EnvironmentSpec,
  base: Python,
  packages: readonly string[],
  progress: Progress,
): Promise<void> {
  progress.onProgress?.(`downloading ${spec.title}`);
  const python = join(spec.directory, "bin/python");
  const [program, ...pip] = pipOf(python, base);
  let collected = 0;
  const onLine = (line: string) => {
    const name = line.match(/^\s*Collecting (\S+?)[<>=!~;[]/)?.[1] ?? line.match(/^\s*Collecting (\S+)/)?.[1];
    if (name) progress.onProgress?.(`downloading ${spec.title}: ${name} (${++collected})`);
    else if (line.startsWith("Installing collected packages"))
      progress.onProgress?.(`installing ${spec.title}: ${line.split(",").length} packages`);
  };
  const { code, lines } = await runWithOpenUmask(program, [...pip, "install", "--progress-bar", "off", ...packages], {
    ...progress,
    onLine,
  });
  if (code !== 0) throw explainPipFailure(lines, spec.release);
}

/** The pip that installs for an environment's Python. */
export function pipOf(python: string, base: Python): [program: string, ...args: string[]] {
  return base.pip === "own" ? [base.program, "-m", "pip", "--python", python] : [python, "-m", "pip"];
}

/** Other users must be able to read what is installed: PostgreSQL does not run as root. */
export function runWithOpenUmask(
  program: string,
  args: string[],
  { signal, onLine }: Progress & { onLine?: (line: string) => void },
) {
  return runCommand("/bin/sh", ["-c", 'umask 022; exec "$@"', "sh", program, ...args], {
    env: pipEnvironment(),
    signal,
    onLine,
  });
}

async function check(spec: EnvironmentSpec, { signal }: Progress): Promise<unknown> {
  const { code, stdout, lines } = await runCommand(join(spec.directory, "bin/python"), ["-c", spec.check], {
    env: pythonEnvironment(),
    signal,
  });
  if (code !== 0)
    throw new UserError(
      "Environment",
      `${spec.title} is installed in ${spec.directory} but does not work: ${lines.at(-1) ?? `exit code ${code}`}`,
    );
  const facts: unknown = JSON.parse(stdout.split("\n").at(-1) ?? "");
  spec.parse?.(facts);
  return facts;
}

async function readStamp(spec: EnvironmentSpec): Promise<Stamp | undefined> {
  try {
    const stamp = JSON.parse(await readFile(stampFile(spec), "utf8")) as Stamp;
    // The link dangles once the machine's Python has been replaced.
    return stamp.packages === fingerprint(spec) && existsSync(join(spec.directory, "bin/python")) ? stamp : undefined;
  } catch {
    return undefined;
  }
}

async function writeStamp(spec: EnvironmentSpec, stamp: Stamp): Promise<void> {
  await writeFile(`${stampFile(spec)}.new`, JSON.stringify(stamp));
  await rename(`${stampFile(spec)}.new`, stampFile(spec));
  await rm(begunFile(spec), { force: true });
}

function fingerprint(spec: EnvironmentSpec): string {
  return createHash("sha256").update(JSON.stringify(spec.installs)).update(spec.check).digest("hex").slice(0, 16);
}

function stampFile(spec: EnvironmentSpec): string {
  return join(spec.directory, `${spec.stamp ?? "installed"}.json`);
}

function begunFile(spec: EnvironmentSpec): string {
  return join(spec.directory, `${spec.stamp ?? "installed"}.begun`);
}
