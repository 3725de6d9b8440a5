import { spawn } from "node:child_process";
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { stringify } from "yaml";
import { UserError } from "../../../model/errors.ts";
import { confinedCommand, helperIn, newId, pythonPath, type Means } from "../launcher/confinement.ts";
import { pythonEnvironment } from "../environment.ts";

export interface ConfinedPython {
  means: Means;
  /** What has the package `multi_synapse`. */
  runtimePath: string;
  /** Where directories of work are made. */
  directory: string;
  /** What it may read besides. */
  readable: readonly string[];
}

export interface Run {
  python: string;
  args: string[];
  /** Files of the process's own directory, in which it runs, by name. */
  files?: Record<string, string>;
  input?: string;
  /** Where Python finds more packages. */
  modules?: string;
  onLine?: (line: string) => void;
  signal: AbortSignal;
}

const WORDS_KEPT = 8_192;

/**
 * Runs Synapse's code on what comes from outside, with a user and a directory of its own, as shards run.
 * @param open gets the directory before it runs, and the user that it runs as
 * @returns what it wrote to stdout @throws UserError InvalidInput with its last words where it fails
 */
export async function runConfined(
  { means, runtimePath, directory, readable }: ConfinedPython,
  { python, args, files = {}, input, modules, onLine, signal }: Run,
  open: (own: string, uid: number | undefined) => Promise<void> = async () => {},
): Promise<string> {
  await mkdir(directory, { recursive: true });
  await chmod(directory, means.users ? 0o711 : 0o700);
  const own = await mkdtemp(join(directory, "import-"));
  try {
    const id = newId();
    for (const [name, text] of Object.entries(files)) await writeFile(join(own, name), text, { mode: 0o600 });
    await open(own, means.users ? id : undefined);
    if (means.users)
      for (const path of [own, ...Object.keys(files).map((n) => join(own, n))]) await chown(path, id, id);
    const [program, ...rest] = confinedCommand(means, helperIn(runtimePath), [python, ...args], {
      ...(means.users ? { owner: { id, shared: id } } : {}),
      read: [runtimePath, ...readable],
      write: [own],
    });
    const env = { ...pythonEnvironment(), PYTHONPATH: pythonPath(runtimePath, modules), HOME: own, TMPDIR: own };
    const child = spawn(program, rest, { cwd: own, env, stdio: "pipe", signal });
    child.stdin.on("error", () => {});
    child.stdin.end(input ?? "");
    let output = "";
    let words = "";
    createInterface({ input: child.stdout }).on("line", (line) => {
      onLine?.(line);
      output = `${output}${line}\n`.slice(-1_000_000);
    });
    child.stderr.on("data", (chunk: Buffer) => (words = `${words}${chunk.toString("utf8")}`.slice(-WORDS_KEPT)));
    const code = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (ended) => resolve(ended ?? -1));
    });
    if (code === 0) return output;
    throw new UserError("InvalidInput", lastOf(words) ?? lastOf(output) ?? "it ended without a word");
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

/** What went wrong is said on stderr; progress, which comes later, on stdout. */
function lastOf(words: string): string | undefined {
  const lines = words.split("\n").map((line) => line.trim());
  return lines.findLast((line) => line !== "" && !/^(at |File |Traceback)/.test(line));
}

/** What synapse_port_db reads of a homeserver.yaml. */
export function portConfig(serverName: string, args: Record<string, unknown>): string {
  return stringify({
    server_name: serverName,
    database: { name: "psycopg2", args: { ...args, cp_min: 1, cp_max: 5 } },
    // Only read; nothing is signed.
    signing_key_path: "signing.key",
    macaroon_secret_key: "unused",
    report_stats: false,
    media_store_path: "media",
    trusted_key_servers: [],
    suppress_key_server_warning: true,
  });
}

/** Of nobody. */
export const UNUSED_KEY = `ed25519 a_unused ${"A".repeat(43)}\n`;
