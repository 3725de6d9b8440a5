import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { exponential } from "../../src/model/backoff.ts";
import { SteadyClock } from "../../src/model/clock.ts";
import { WorkQueue } from "../../src/controller/work-queue.ts";

const options = {
  clock: new SteadyClock(),
  laneOf: () => ({ name: "all", slots: 4 }),
  retryDelay: () => 5,
  onError: () => {},
};

it("never runs a key twice at a time, and runs it again if it was added meanwhile", async () => {
  let running = 0;
  let most = 0;
  let runs = 0;
  const queue = new WorkQueue(async () => {
    most = Math.max(most, ++running);
    runs += 1;
    await sleep(10);
    running -= 1;
  }, options);
  queue.add("a");
  await sleep(2);
  for (let n = 0; n < 10; n++) queue.add("a");
  await expect.poll(() => runs).toBe(2);
  await sleep(40);
  expect({ most, runs }).toEqual({ most: 1, runs: 2 });
  await queue.close();
});

it("runs keys side by side up to the slots of their lane", async () => {
  let most = 0;
  const running = new Set<string>();
  const queue = new WorkQueue(async (key) => {
    running.add(key);
    most = Math.max(most, running.size);
    await sleep(20);
    running.delete(key);
  }, options);
  for (const key of ["a", "b", "c", "d", "e", "f"]) queue.add(key);
  await expect.poll(() => most).toBe(4);
  await queue.close();
  expect(running.size).toBe(0);
});

it("retries a handler that throws until it succeeds, and counts the attempts", async () => {
  const attempts: number[] = [];
  let runs = 0;
  const queue = new WorkQueue(
    async () => {
      if (++runs < 4) throw new Error("no");
    },
    { ...options, onError: (_key, _error, attempt) => attempts.push(attempt) },
  );
  queue.add("a");
  await expect.poll(() => runs).toBe(4);
  expect(attempts).toEqual([1, 2, 3]);
  await queue.close();
});

it("counts the earlier of two times, and add() overtakes both", async () => {
  let runs = 0;
  const queue = new WorkQueue(async () => void runs++, options);
  queue.addAfter("a", 10_000);
  queue.addAfter("a", 10);
  await expect.poll(() => runs).toBe(1);
  queue.addAfter("b", 10_000);
  queue.add("b");
  await expect.poll(() => runs).toBe(2);
  await queue.close();
});

it("doubles delays, spreads them, and bounds them", () => {
  const delay = exponential(100, 1000, () => 1);
  expect([1, 2, 3, 4, 5, 1000].map(delay)).toEqual([100, 200, 400, 800, 1000, 1000]);
  expect(exponential(100, 1000, () => 0)(1)).toBe(80);
});

it("keeps a slow kind of work out of the way of others: each lane has slots of its own", async () => {
  const begun: string[] = [];
  let release = () => {};
  const slow = new Promise<void>((done) => (release = done));
  const laneOf = (key: string) => ({ name: key.startsWith("slow") ? "slow" : "quick", slots: 2 });
  const queue = new WorkQueue(
    async (key) => {
      begun.push(key);
      if (key.startsWith("slow")) await slow;
    },
    { ...options, laneOf },
  );
  for (const key of ["slow 1", "slow 2", "slow 3", "quick 1", "quick 2", "quick 3"]) queue.add(key);
  await expect.poll(() => begun).toEqual(["slow 1", "slow 2", "quick 1", "quick 2", "quick 3"]);
  release();
  await expect.poll(() => begun.at(-1)).toBe("slow 3");
  await queue.close();
});

it("moves a waiting key to the lane that its kind of work has become", async () => {
  const lanes = new Map([["a", "slow"]]);
  const begun: string[] = [];
  const queue = new WorkQueue(
    async (key) => {
      begun.push(key);
      if (key === "blocker") await new Promise(() => {});
    },
    { ...options, laneOf: (key) => ({ name: lanes.get(key) ?? "slow", slots: 1 }) },
  );
  queue.add("blocker");
  queue.add("a");
  await sleep(5);
  expect(begun).toEqual(["blocker"]);
  lanes.set("a", "moves");
  queue.add("a");
  await expect.poll(() => begun).toEqual(["blocker", "a"]);
});
