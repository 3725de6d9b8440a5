import { afterEach, expect, test, vi } from "vitest";
import { waitFor, type Progress } from "../../src/cli/wait.ts";

afterEach(() => vi.restoreAllMocks());

/** What is said without a terminal while it is waited for. */
async function saidOf(states: Progress<string>[], lineEveryMs: number): Promise<string> {
  let said = "";
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    said += String(text);
    return true;
  });
  const ask = async () => (states.length > 1 ? states.shift()! : states[0]!);
  expect(await waitFor("tenant a", 60_000, ask, lineEveryMs)).toBe("ran");
  return said;
}

const waiting = (text: string): Progress<string> => ({ waiting: text });

test("without a terminal, what takes long is told in a line whenever it stands elsewhere", async () => {
  const states = [waiting("Pending"), waiting("Pending"), waiting("Starting"), waiting("Starting"), { done: "ran" }];
  expect(await saidOf(states, 0)).toBe("tenant a: Pending\ntenant a: Starting\n");
});

test("what is over soon is not told at all, and lines are apart", async () => {
  expect(await saidOf([waiting("Pending"), { done: "ran" }], 60_000)).toBe("");
  let now = 0;
  vi.spyOn(Date, "now").mockImplementation(() => now);
  const states = [4, 8, 12, 16, 20, 24].map((seconds) => waiting(`for ${seconds} s`));
  const passing = states.map((state) => () => ((now += 4_000), state));
  const lines: string[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((text) => lines.push(String(text)) > 0);
  await waitFor("tenant a", 60_000, async () => passing.shift()?.() ?? { done: "ran" }, 10_000);
  expect(lines).toEqual(["tenant a: for 12 s\n", "tenant a: for 24 s\n"]);
});
