/**
 * Gives the memory back that a process needed while it had work. V8 keeps it: after its start, a process that has nothing to do holds
 * some 30 MiB that nothing is in, and each cluster on one machine has four of them.
 */
import { performance } from "node:perf_hooks";
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

export interface Look {
  /** Milliseconds, of any clock that goes on. */
  at: number;
  /** Of the event loop since the look before: 0 to 1. */
  utilization: number;
  /** Bytes that the heap takes, and those in use. */
  taken: number;
  used: number;
}

/** What the last collection left, and when it was. */
export interface Collected {
  at: number;
  taken: number;
}

const LOOK_MS = 30_000;
/** A collection stops the process for some 40 ms: by then nobody has asked for much in half a minute. */
const IDLE_UTILIZATION = 0.05;
const WORTHWHILE_BYTES = 8 * 1024 ** 2;
/** So that a process with a little work all the time does not collect all the time. */
const REST_MS = 5 * 60_000;
/** Beyond it, a collection takes a second. */
const LARGEST_BYTES = 256 * 1024 ** 2;

export function shouldCollect({ at, utilization, taken, used }: Look, last: Collected | undefined): boolean {
  if (utilization > IDLE_UTILIZATION || used > LARGEST_BYTES) return false;
  if (last === undefined) return true;
  return at - last.at >= REST_MS && taken - last.taken >= WORTHWHILE_BYTES;
}

/** Looks twice a minute, for as long as the process has anything else to do. */
export function giveMemoryBackWhenIdle(): void {
  let before = performance.eventLoopUtilization();
  let last: Collected | undefined;
  setInterval(() => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    const { total_physical_size: taken, used_heap_size: used } = getHeapStatistics();
    const look = { at: performance.now(), utilization, taken, used };
    if (!shouldCollect(look, last)) return;
    collect();
    last = { at: performance.now(), taken: getHeapStatistics().total_physical_size };
  }, LOOK_MS).unref();
}

type Gc = (options: { type: "major"; flavor: "last-resort" }) => void;
let gc: Gc | undefined;

/** A full collection that returns pages to the system, which V8's own timing avoids. */
export function collect(): void {
  if (gc === undefined) {
    setFlagsFromString("--expose-gc");
    gc = runInNewContext("gc") as Gc;
    // New contexts, such as those of templates, need not have it.
    setFlagsFromString("--no-expose-gc");
  }
  gc({ type: "major", flavor: "last-resort" });
}
