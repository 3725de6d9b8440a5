import { describe, expect, it } from "vitest";
import { SteadyClock, timeText } from "../../src/model/clock.ts";
import { FakeTime } from "../support/fake-clock.ts";

const TWO_HOURS = 2 * 3_600_000;

function begin() {
  const time = new FakeTime();
  return { time, clock: new SteadyClock(time) };
}

describe("a clock that is set back by two hours", () => {
  it("goes on, and waits end when they would have", () => {
    const { time, clock } = begin();
    const retryAt = timeText(clock.now() + 60_000);
    time.set(-TWO_HOURS);
    expect(clock.until(retryAt, 60_000)).toBe(60_000);
    time.pass(59_000);
    expect(clock.until(retryAt, 60_000)).toBe(1_000);
    time.pass(1_000);
    expect(clock.until(retryAt, 60_000)).toBe(0);
  });

  it("measures durations by what has passed", () => {
    const { time, clock } = begin();
    const parkedAt = timeText(clock.now());
    time.pass(100);
    time.set(-TWO_HOURS);
    time.pass(150);
    expect(clock.age(parkedAt)).toBe(250);
  });

  it("shows the machine's time where the hour of the day counts", () => {
    const { time, clock } = begin();
    const before = clock.wall();
    time.set(-TWO_HOURS);
    expect(clock.wall()).toBe(before - TWO_HOURS);
    expect(clock.now()).toBe(before);
  });
});

describe("times that a process before this one wrote, whose clock was two hours ahead", () => {
  it("caps a wait at the longest that is ever waited", () => {
    const { time, clock } = begin();
    const retryAt = timeText(clock.now() + TWO_HOURS + 60_000);
    expect(clock.until(retryAt, 60_000)).toBe(60_000);
    time.pass(45_000);
    expect(clock.until(retryAt, 60_000)).toBe(15_000);
    time.pass(45_000);
    expect(clock.until(retryAt, 60_000)).toBe(0);
  });

  it("takes what has happened for no younger than this process", () => {
    const { time, clock } = begin();
    const changedAt = timeText(clock.now() + TWO_HOURS);
    expect(clock.age(changedAt)).toBe(0);
    time.pass(30_000);
    expect(clock.age(changedAt)).toBe(30_000);
  });
});

it("follows the machine's clock forwards, as after a suspension", () => {
  const { time, clock } = begin();
  const retryAt = timeText(clock.now() + 60_000);
  time.set(8 * 3_600_000);
  expect(clock.until(retryAt, 60_000)).toBe(0);
  expect(clock.now()).toBe(time.wall());
});

it("runs what is due, and nothing that was called off", () => {
  const { time, clock } = begin();
  const ran: string[] = [];
  clock.after(100, () => ran.push("a"));
  const cancel = clock.after(100, () => ran.push("b"));
  cancel();
  time.set(-TWO_HOURS);
  time.pass(100);
  expect(ran).toEqual(["a"]);
});
