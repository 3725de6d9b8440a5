import { execFile } from "node:child_process";
import { cpus, release, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { DEFAULT_RELEASE, ensurePostgres, ensureSynapse } from "../../src/platforms/local/toolchain/toolchain.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const run = promisify(execFile);

/** The machine and the versions that were measured. */
export interface Surroundings {
  cpu: string;
  cores: number;
  memoryGiB: number;
  kernel: string;
  node: string;
  python: string;
  synapse: string;
  postgres: string;
  /** Short hash; `+` where the work tree had changes. */
  commit: string;
  /** ISO 8601. */
  date: string;
}

export async function surroundings(): Promise<Surroundings> {
  const [{ python }, { binDir }] = await Promise.all([ensureSynapse(DEFAULT_RELEASE), ensurePostgres()]);
  const said = async (program: string, ...args: string[]) => (await run(program, args, { cwd: ROOT })).stdout.trim();
  const [pythonSays, postgresSays] = await Promise.all([
    said(python, "--version"),
    said(join(binDir, "postgres"), "--version"),
  ]);
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.version,
    python: pythonSays.replace("Python ", ""),
    synapse: DEFAULT_RELEASE,
    postgres: postgresSays.replace(/^.*\) /, ""),
    commit: await commit(said),
    date: new Date().toISOString(),
  };
}

async function commit(said: (program: string, ...args: string[]) => Promise<string>): Promise<string> {
  try {
    const hash = await said("git", "rev-parse", "--short", "HEAD");
    // The run itself writes results.
    const changes = await said("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results");
    return changes === "" ? hash : `${hash}+`;
  } catch {
    return "unknown";
  }
}
