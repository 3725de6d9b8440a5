import { expect, it } from "vitest";
import { Missed } from "../../../src/controller/backups/schedule.ts";

const MINUTE = 60_000;

it("tells once that backups are missed, after half an hour, and when that is over", () => {
  const missed = new Missed();
  expect([missed.over(), missed.problem()]).toEqual([false, undefined]);
  expect(missed.failed("it is away", 0)).toBeUndefined();
  expect(missed.failed("it is away", 29 * MINUTE)).toBeUndefined();
  const words = "no backup of the schedule can be made since 1970-01-01T00:00:00.000Z: it is full";
  expect(missed.failed("it is full", 30 * MINUTE)).toBe(words);
  expect(missed.failed("it is full", 31 * MINUTE)).toBeUndefined();
  expect(missed.problem()).toBe(words);
  expect([missed.over(), missed.over(), missed.problem()]).toEqual([true, false, undefined]);
  expect(missed.failed("it is away", 100 * MINUTE)).toBeUndefined();
});
