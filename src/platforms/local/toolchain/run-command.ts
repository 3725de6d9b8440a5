import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** More than any message for people needs; bounded because a broken tool may print without end. */
const LINES_KEPT = 400;

export interface CommandResult {
  /** -1 when a signal ended it. */
  code: number;
  stdout: string;
  /** The last lines of stdout and stderr as they came. */
  lines: string[];
}

export interface CommandOptions {
  cwd?: string;
  /** All of it; see environment.ts. */
  env: Record<string, string>;
  uid?: number;
  gid?: number;
  signal?: AbortSignal;
  onLine?: (line: string) => void;
}

/** Runs a program to its end. Rejects only if it cannot be started (ENOENT, EACCES) or the signal aborts. */
export function runCommand(program: string, args: readonly string[], options: CommandOptions): Promise<CommandResult> {
  const { cwd, env, uid, gid, signal, onLine } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, env, uid, gid, signal, stdio: ["ignore", "pipe", "pipe"] });
    child.once("error", reject);
    // Without descriptors for its pipes there are none; the error says so.
    if (!child.stdout || !child.stderr) return;
    const lines: string[] = [];
    const stdout: string[] = [];
    const keep = (line: string) => {
      lines.push(line);
      if (lines.length > LINES_KEPT) lines.shift();
      onLine?.(line);
    };
    createInterface({ input: child.stdout }).on("line", (line) => {
      stdout.push(line);
      if (stdout.length > LINES_KEPT) stdout.shift();
      keep(line);
    });
    createInterface({ input: child.stderr }).on("line", keep);
    child.once("close", (code) => resolve({ code: code ?? -1, stdout: stdout.join("\n"), lines }));
  });
}
