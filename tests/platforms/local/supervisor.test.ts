import { expect, test } from "vitest";
import { restartDelay, Supervisor, type Running } from "../../../src/platforms/local/up/supervisor.ts";

/** A process that is only a promise. */
class Fake implements Running {
  readonly pid: number;
  readonly ended: Promise<string>;
  end!: (how: string) => void;
  constructor(pid: number) {
    this.pid = pid;
    this.ended = new Promise((resolve) => (this.end = resolve));
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function until(holds: () => boolean): Promise<void> {
  for (let turns = 0; !holds(); turns++) {
    if (turns > 1000) throw new Error("it did not come to that");
    await turn();
  }
  await turn();
}

function build() {
  const fakes: Fake[] = [];
  const lines: string[] = [];
  const delays: number[] = [];
  const state = { now: 0, broken: false, isAtHand: false };
  const supervisor = new Supervisor({
    title: "the part",
    launch: async () => {
      if (state.broken) throw new Error("no such file");
      const fake = new Fake(fakes.length + 1);
      fakes.push(fake);
      return fake;
    },
    onLine: (line) => lines.push(line),
    isAtHand: () => state.isAtHand,
    now: () => state.now,
    delay: async (ms) => {
      delays.push(ms);
      await turn();
    },
  });
  const launched = (count: number) => until(() => fakes.length >= count);
  return { supervisor, fakes, lines, delays, state, launched };
}

test("what ends is started again, later each time, and soon again once it was healthy", async () => {
  // Prevents: a crash loop that eats a core; a long wait after one crash in a month.
  const { supervisor, fakes, delays, lines, state, launched } = build();
  await supervisor.start();
  for (let count = 1; count <= 3; count++) {
    fakes[count - 1]!.end("exit code 1");
    await launched(count + 1);
  }
  state.now = 60_000;
  fakes[3]!.end("SIGKILL");
  await launched(5);
  expect(delays).toEqual([200, 400, 800, 200]);
  expect(lines[0]).toBe("the part ended unexpectedly (exit code 1); starting it again in 0.2 s");
  expect(lines.at(-1)).toBe("the part runs again (process 5)");
  await supervisor.release();
});

test("what is at hand takes over at once, unless it ends again soon", async () => {
  const { supervisor, fakes, delays, lines, state, launched } = build();
  state.isAtHand = true;
  await supervisor.start();
  fakes[0]!.end("SIGKILL");
  await launched(2);
  expect(delays).toEqual([]);
  expect(lines[0]).toBe("the part ended unexpectedly (SIGKILL); starting it again now");
  fakes[1]!.end("exit code 1");
  await launched(3);
  expect(delays).toEqual([400]);
  await supervisor.release();
});

test("a start that fails is tried again", async () => {
  // Prevents: giving up forever because a port was still in use for a moment.
  const { supervisor, fakes, lines, delays, state, launched } = build();
  await supervisor.start();
  state.broken = true;
  fakes[0]!.end("SIGKILL");
  await until(() => delays.length >= 3);
  expect(supervisor.running).toBeUndefined();
  state.broken = false;
  await launched(2);
  expect(lines.some((line) => line.startsWith("the part cannot be started: no such file; next try in 0.4 s"))).toBe(
    true,
  );
  await supervisor.release();
});

test("what was released is left alone", async () => {
  // Prevents: a part that comes back while the cluster is being stopped.
  const { supervisor, fakes } = build();
  await supervisor.start();
  expect((await supervisor.release())?.pid).toBe(1);
  fakes[0]!.end("exit code 0");
  await turn();
  expect(fakes).toHaveLength(1);
});

test("the first start's failure is the caller's", async () => {
  // Prevents: `up` that says it is up while a part never started.
  const { supervisor, state } = build();
  state.broken = true;
  await expect(supervisor.start()).rejects.toThrow("no such file");
});

test("delays are bounded", () => {
  // Prevents: a part that is away for hours after a night of crashes.
  expect([1, 2, 6, 7, 50].map(restartDelay)).toEqual([200, 400, 6_400, 10_000, 10_000]);
});
