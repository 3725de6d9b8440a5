import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** What Linux counts for a process, in bytes and seconds. */
export interface ProcessMemory {
  /** Proportional set size: pages that several processes map are shared out among them. */
  pss: number;
  /** The part of it that does not depend on neighbours. */
  private: number;
}

export async function memoryOf(pid: number): Promise<ProcessMemory> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  const bytes = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN) * 1024;
  return { pss: bytes("Pss"), private: bytes("Private_Clean") + bytes("Private_Dirty") };
}

/** The most that was resident at once, in bytes. */
export async function peakOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(text)?.[1] ?? Number.NaN) * 1024;
}

/** A process and all that descend from it. */
export async function familyOf(pid: number): Promise<{ pid: number; name: string; command: string }[]> {
  const children = new Map<number, number[]>();
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const stat = await readFile(`/proc/${entry}/stat`, "utf8").catch(() => "");
    const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
    children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
  }
  const found: { pid: number; name: string; command: string }[] = [];
  const add = async (each: number): Promise<void> => {
    const text = (file: string) => readFile(`/proc/${each}/${file}`, "utf8").catch(() => "");
    const [name, command] = [(await text("comm")).trim(), (await text("cmdline")).replaceAll("\0", " ").trim()];
    found.push({ pid: each, name, command });
    for (const child of children.get(each) ?? []) await add(child);
  };
  await add(pid);
  return found;
}

export async function threadsOf(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/task`)).length;
}

/** Ticks of /proc/PID/stat per second: fixed at 100 for user space on every Linux architecture that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Seconds of processor time, of all its threads, including those that have ended. */
export async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The name, in brackets, may contain spaces; the fields after it are numbered from 3.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[14 - 3]) + Number(fields[15 - 3])) / TICKS_PER_SECOND;
}

export async function isAlive(pid: number): Promise<boolean> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    return !stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
  } catch {
    return false;
  }
}

/** Ends a process that we started, by force if it does not end in time. */
export async function endProcess(pid: number, graceMs = 20_000): Promise<void> {
  for (const [signal, limit] of [["SIGTERM", graceMs] as const, ["SIGKILL", 5_000] as const]) {
    try {
      process.kill(pid, signal);
    } catch {
      return;
    }
    for (const deadline = Date.now() + limit; Date.now() < deadline; await sleep(50)) {
      if (!(await isAlive(pid))) return;
    }
  }
}
