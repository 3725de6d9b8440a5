import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { UserError } from "../../../model/errors.ts";
import { nodeEnvironment } from "../environment.ts";
import { rotateAtStart } from "../files.ts";
import type { Running } from "./supervisor.ts";

const POLL_MS = 30;
/** What a part needs to come up on a busy machine; beyond it something is wrong. */
const READY_MS = 60_000;
/** How long a leftover of a killed cluster may take to end on its own. */
const LEFTOVER_MS = 10_000;

export interface NodeProcessOptions {
  title: string;
  /** Arguments of node: options, the program, its arguments. */
  args: readonly string[];
  /** Written by the process when it is ready: JSON with its `pid`. */
  readyFile: string;
  /** Takes what it prints; kept short, since its log is elsewhere. */
  outputFile: string;
  signal?: AbortSignal;
}

/**
 * Starts a part of the cluster with this Node, in a session of its own, so that Ctrl-C in a terminal is for us alone. The channel
 * tells it when we are gone (see `exitWithParent`).
 * @throws UserError Environment with the last words of a process that did not come up
 */
export async function startNode(options: NodeProcessOptions): Promise<Running> {
  rmSync(options.readyFile, { force: true });
  rotateAtStart(options.outputFile);
  return untilReady(spawnNode(options.args, options.outputFile), options);
}

/** A part that was started, and may not be ready yet. */
export interface Started {
  child: ChildProcess;
  /** Resolves with how it ended, in words. */
  ended: Promise<string>;
  /** The same once it has. */
  how: () => string | undefined;
}

export function spawnNode(args: readonly string[], outputFile: string): Started {
  const output = openSync(outputFile, "a", 0o600);
  const child = spawn(process.execPath, args, {
    detached: true,
    stdio: ["ignore", output, output, "ipc"],
    env: nodeEnvironment(),
  });
  closeSync(output);
  let how: string | undefined;
  const ended = new Promise<string>((resolve) => {
    child.once("exit", (code, name) => resolve((how = name ?? `exit code ${code}`)));
    child.once("error", (error) => resolve((how = error.message)));
  });
  return { child, ended, how: () => how };
}

/** @throws UserError Environment; then it runs no longer */
export async function untilReady(
  { child, ended, how }: Started,
  { title, readyFile, outputFile, signal }: NodeProcessOptions,
): Promise<Running> {
  const deadline = Date.now() + READY_MS;
  // A full disk may keep the ready file from being written: the gateway says it to its parent as well.
  let isAnnounced = false;
  child.once("message", () => (isAnnounced = true));
  while (child.pid === undefined || !(isAnnounced || pidIn(readyFile) === child.pid)) {
    if (how() !== undefined)
      throw new UserError("Environment", `${title} did not start (${how()}): ${lastWords(outputFile)}`);
    if (Date.now() > deadline || signal?.aborted) {
      child.kill("SIGKILL");
      await ended;
      signal?.throwIfAborted();
      throw new UserError(
        "Environment",
        `${title} was not ready within ${READY_MS / 1000} s: ${lastWords(outputFile)}`,
      );
    }
    await sleep(POLL_MS);
  }
  return { pid: child.pid, ended };
}

/** Asks a process to end, and ends it if it has not after `graceMs`. @returns whether it had to be forced */
export async function endProcess(running: Running, graceMs: number, ask: () => void | Promise<void>): Promise<boolean> {
  await ask();
  const inTime = await Promise.race([running.ended.then(() => true), sleep(graceMs, false, { ref: false })]);
  if (inTime) return false;
  sendSignal(running.pid, "SIGKILL");
  await running.ended;
  return true;
}

export function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended meanwhile.
  }
}

/** Waits for parts that a killed cluster process left behind and that are about to notice; then ends them. */
export async function endLeftovers(argument: string, waitMs = LEFTOVER_MS): Promise<void> {
  const deadline = Date.now() + waitMs;
  for (let pids = processesWith(argument); pids.length > 0; pids = processesWith(argument)) {
    if (Date.now() > deadline) for (const pid of pids) sendSignal(pid, "SIGKILL");
    await sleep(POLL_MS);
  }
}

/** Processes, other than this one, that were given this argument. */
export function processesWith(argument: string): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid && argumentsOf(pid).includes(argument));
}

function argumentsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

function pidIn(readyFile: string): number | undefined {
  try {
    return (JSON.parse(readFileSync(readyFile, "utf8")) as { pid?: number }).pid;
  } catch {
    return undefined;
  }
}

function lastWords(file: string): string {
  const lines = readFileSync(file, "utf8").trim().split("\n");
  // Of a stack, the message; of anything else, the last line.
  return (
    lines.findLast((line) => /^[^\s].*(error|:)/i.test(line) && !line.startsWith("Node.js")) ??
    (lines.at(-1) || "it said nothing")
  );
}
