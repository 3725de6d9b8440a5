import { expect, it } from "vitest";
import { Progress } from "../../../src/controller/backups/log-progress.ts";

it("says until when everything is in the target only after all of that is there", () => {
  const progress = new Progress();
  progress.note(100n, "a", 1);
  expect([progress.until, progress.since, progress.isBehind]).toEqual([undefined, 1, true]);
  progress.note(200n, "b", 2);
  progress.note(300n, "c", 3);
  progress.ship(250n);
  expect([progress.until, progress.isBehind]).toEqual([2, true]);
  progress.ship(300n);
  expect([progress.until, progress.isBehind]).toEqual([3, false]);
});

it("is not behind on a server to which nobody writes, though its log grows a little", () => {
  const progress = new Progress();
  progress.note(100n, "a", 1);
  progress.ship(128n);
  progress.note(150n, "a", 50);
  expect([progress.until, progress.isBehind]).toEqual([50, false]);
  progress.note(160n, "b", 60);
  expect([progress.until, progress.isBehind]).toEqual([50, true]);
});

it("takes no more memory while the target is away for long", () => {
  const progress = new Progress();
  progress.note(1n, "0", 0);
  progress.ship(1n);
  for (let n = 1; n < 5_000; n++) progress.note(BigInt(n + 1), String(n), n);
  expect([progress.until, progress.isBehind]).toEqual([0, true]);
  progress.ship(4_900n);
  expect(progress.until).toBeGreaterThan(4_000);
  expect(progress.until).toBeLessThan(4_900);
});
