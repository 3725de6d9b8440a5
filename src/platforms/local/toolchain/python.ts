import { UserError } from "../../../model/errors.ts";
import { pythonEnvironment } from "../environment.ts";
import { firstClosed } from "../files.ts";
import { runCommand } from "./run-command.ts";

const CANDIDATES = ["python3", "python3.11", "python3.12", "python3.13", "python3.14", "python3.10"];
/** As root, shards have users of their own, who must be able to run it; root's first one may be in a directory of root's alone. */
const SYSTEM_PYTHON = "/usr/bin/python3";
const ANYBODY = { uid: 65_534, gid: 65_534 };
/** What Synapse's releases of today ask for, and what `multi_synapse` is tested with. */
const OLDEST = [3, 11] as const;

const PROBE = `
import os, sys
def has(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False
print(sys.version_info[0], sys.version_info[1], has("venv"), has("ensurepip"), has("pip"), os.path.dirname(os.path.realpath(sys.executable)))
`;

export interface Python {
  program: string;
  version: string;
  /** Where it really is. */
  directory: string;
  /** How pip gets into a virtual environment: Debian ships Python without `ensurepip` unless python3-venv is installed. */
  pip: "ensurepip" | "own";
}

/** Finds a Python that can make virtual environments. @throws UserError Environment that says what to install */
export async function findPython(signal?: AbortSignal): Promise<Python> {
  const chosen = process.env["SYNAPSE_SHARDS_PYTHON"];
  const root = process.getuid?.() === 0;
  const problems: string[] = [];
  let closed: Python | undefined;
  for (const program of chosen ? [chosen] : root ? [...CANDIDATES, SYSTEM_PYTHON] : CANDIDATES) {
    const found = await probe(program, signal);
    if (typeof found === "string") {
      if (found) problems.push(`${program} ${found}`);
    } else if (!root || firstClosed(found.directory, ANYBODY) === undefined) {
      return found;
    } else {
      closed ??= found;
    }
  }
  if (closed) return closed;
  const why = problems.length > 0 ? ` (${problems.join("; ")})` : "";
  throw new UserError(
    "Environment",
    `no usable Python found${why}: install Python ${OLDEST.join(".")} or newer with the modules venv and ensurepip ` +
      `(on Debian and Ubuntu: apt install python3 python3-venv), or name one in SYNAPSE_SHARDS_PYTHON`,
  );
}

/** @returns why it cannot be used; empty if it is not there at all */
async function probe(program: string, signal?: AbortSignal): Promise<Python | string> {
  let output: string;
  try {
    const { code, stdout, lines } = await runCommand(program, ["-c", PROBE], { env: pythonEnvironment(), signal });
    if (code !== 0) return `does not run: ${lines.at(-1) ?? `exit code ${code}`}`;
    output = stdout.trim();
  } catch (error) {
    signal?.throwIfAborted();
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT" ? "" : `cannot be run (${code})`;
  }
  const [major, minor, venv, ensurepip, pip, ...directories] = output.split(" ");
  const directory = directories.join(" ");
  const version = `${major}.${minor}`;
  if (Number(major) !== OLDEST[0] || Number(minor) < OLDEST[1]) return `is version ${version}`;
  if (venv !== "True") return `(${version}) lacks the module venv`;
  if (ensurepip === "True") return { program, version, directory, pip: "ensurepip" };
  if (pip === "True") return { program, version, directory, pip: "own" };
  return `(${version}) lacks the module ensurepip`;
}
