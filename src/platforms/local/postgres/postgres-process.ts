import { readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const POLL_MS = 50;
/** Fast shutdown writes a checkpoint; with much in memory on a slow disk that takes a while. */
const FAST_MS = 60_000;
const IMMEDIATE_MS = 10_000;

/** What postmaster.pid says of the server that runs on a data directory, if one does. */
export async function runningServer(dataDir: string): Promise<{ pid: number; port: number } | undefined> {
  const lines = (await readFile(join(dataDir, "postmaster.pid"), "utf8").catch(() => "")).split("\n");
  const [pid, port] = [Number(lines[0]), Number(lines[3])];
  return pid > 0 && port > 0 && (await isPostmaster(pid, dataDir)) ? { pid, port } : undefined;
}

/** A pid alone would not do: another process may have it by now. PostgreSQL's works in its data directory. */
export async function isPostmaster(pid: number, dataDir: string): Promise<boolean> {
  try {
    const [cwd, stat] = await Promise.all([readlink(`/proc/${pid}/cwd`), readFile(`/proc/${pid}/stat`, "utf8")]);
    return cwd === dataDir && !stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
  } catch {
    return false;
  }
}

/** Resolves when the server has ended. */
export async function serverEnded(pid: number, dataDir: string, pollMs = 500): Promise<void> {
  while (await isPostmaster(pid, dataDir)) await sleep(pollMs, undefined, { ref: false });
}

/** Ends the server: connections are cut and the data written (fast); if that hangs, without writing (immediate: the next start recovers). */
export async function stopServer(pid: number, dataDir: string, onProgress: (step: string) => void): Promise<void> {
  const tries = [
    ["SIGINT", FAST_MS],
    ["SIGQUIT", IMMEDIATE_MS],
    ["SIGKILL", IMMEDIATE_MS],
  ] as const;
  for (const [signal, limit] of tries) {
    if (!(await isPostmaster(pid, dataDir))) return;
    if (signal !== "SIGINT") onProgress(`PostgreSQL does not stop; ${signal}`);
    try {
      process.kill(pid, signal);
    } catch {
      return; // It ended meanwhile.
    }
    const deadline = Date.now() + limit;
    while (Date.now() < deadline && (await isPostmaster(pid, dataDir))) await sleep(POLL_MS);
  }
}
