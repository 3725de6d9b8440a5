import { spawn } from "node:child_process";
import { once } from "node:events";
import { join, resolve } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { lockDataDirectory, tryLock, waitForLock } from "../../../src/platforms/local/up/lock.ts";
import { temporaryDirectory } from "./support.ts";

const LOCK_MODULE = resolve(import.meta.dirname, "../../../src/platforms/local/up/lock.ts");

/** A process that takes the lock, says so, and keeps it until it is ended. */
async function holder(file: string): Promise<{ pid: number; kill(): Promise<void> }> {
  const program = `
    import { tryLock } from ${JSON.stringify(LOCK_MODULE)};
    globalThis.lock = tryLock(${JSON.stringify(file)});
    process.stdout.write(globalThis.lock ? "has it" : "has it not");
    setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  onTestFinished(kill);
  const [said] = await once(child.stdout, "data");
  expect(String(said)).toBe("has it");
  return { pid: child.pid!, kill };
}

test("one process at a time, and the other learns who it is", async () => {
  // Prevents: two clusters that work on the same databases and shards.
  const directory = await temporaryDirectory();
  const other = await holder(join(directory, "lock"));
  expect(() => lockDataDirectory(directory)).toThrow(`(process ${other.pid}); stop it first`);
});

test("the lock goes with a process that is killed", async () => {
  // Prevents: a stale lock after kill -9 that somebody has to remove by hand.
  const directory = await temporaryDirectory();
  const other = await holder(join(directory, "lock"));
  await other.kill();
  const lock = lockDataDirectory(directory);
  expect(() => lockDataDirectory(directory)).toThrow(`(process ${process.pid})`);
  lock.release();
});

test("the same process cannot have it twice, and can have it again", async () => {
  // Prevents: POSIX locks, which belong to a process, being no lock between two parts of one.
  const file = join(await temporaryDirectory(), "lock");
  const first = tryLock(file);
  expect(first).toBeDefined();
  expect(tryLock(file)).toBeUndefined();
  first?.release();
  const second = tryLock(file);
  expect(second).toBeDefined();
  second?.release();
});

test("waiting ends when the lock is free, or when nobody waits any more", async () => {
  // Prevents: an installation that waits forever, or does not stop at Ctrl-C.
  const file = join(await temporaryDirectory(), "lock");
  const first = tryLock(file)!;
  const holders: (number | undefined)[] = [];
  const waiting = waitForLock(file, { onWait: (pid) => holders.push(pid) });
  await expect(waitForLock(file, { signal: AbortSignal.timeout(50) })).rejects.toThrow("aborted");
  first.release();
  (await waiting).release();
  expect(holders).toEqual([process.pid]);
});
