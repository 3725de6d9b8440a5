import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { type Check, pytestReport, runLanes, summarize, vitestReport } from "../../bin/run-checks.ts";

function check(title: string, script: string): Check {
  return { title, command: [process.execPath, "-e", script] };
}

/** What is written meanwhile, without reaching the test's own output. */
function written(stream: "stdout" | "stderr"): () => string {
  let text = "";
  const spy = vi.spyOn(process[stream], "write").mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  onTestFinished(() => spy.mockRestore());
  return () => text;
}

test("a check that fails fails the run, and the checks after it run all the same", async () => {
  const [out, errors] = [written("stdout"), written("stderr")];
  const first = [check("bad", "console.log('why it is bad'); process.exit(3)"), check("good", "")];
  const outcomes = await runLanes([first, []], process.env);
  expect(outcomes.map(({ title, ok }) => [title, ok])).toEqual([
    ["bad", false],
    ["good", true],
  ]);
  expect(errors()).toContain("why it is bad");
  expect(summarize(outcomes)).toBe(1);
  expect(errors()).toContain("✗ bad");
  expect(out()).toBe("tests: 0 passed, 1 failed, 0 skipped\n");
});

test("lanes run beside each other", async () => {
  written("stderr");
  // Each waits for the other's file: one after the other, neither would end.
  const directory = mkdtempSync(join(tmpdir(), "lanes-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const meet = (own: string, other: string) =>
    check(
      own,
      `const fs = require("node:fs"); const at = (name) => ${JSON.stringify(directory)} + "/" + name;
       fs.writeFileSync(at("${own}"), "");
       const timer = setInterval(() => fs.existsSync(at("${other}")) && clearInterval(timer), 10);
       setTimeout(() => process.exit(1), 20_000).unref();`,
    );
  const outcomes = await runLanes([[meet("a", "b")], [meet("b", "a")]], process.env);
  expect(outcomes.map(({ ok }) => ok)).toEqual([true, true]);
});

test("tests are counted as their runners report them, and failed ones are named", () => {
  const [out, errors] = [written("stdout"), written("stderr")];
  const vitest = vitestReport();
  writeFileSync(
    vitest.args[2]!.slice("--outputFile.json=".length),
    JSON.stringify({
      numPassedTests: 5,
      numFailedTests: 1,
      numPendingTests: 2,
      numTodoTests: 0,
      testResults: [
        {
          name: join(process.cwd(), "tests/a.test.ts"),
          status: "failed",
          assertionResults: [{ status: "failed", fullName: "keeps it", failureMessages: ["Error: lost\n  at x"] }],
        },
      ],
    }),
  );
  const pytest = pytestReport();
  writeFileSync(
    pytest.args[0]!.slice("--junitxml=".length),
    `<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="0" failures="0" skipped="1" tests="4"></testsuite></testsuites>`,
  );
  const results = [
    { title: "vitest", ok: false, seconds: 1, ...vitest.report(false) },
    { title: "pytest", ok: true, seconds: 1, ...pytest.report() },
  ];
  expect(summarize(results)).toBe(1);
  expect(errors()).toContain("tests/a.test.ts: keeps it: Error: lost");
  expect(out()).toBe("tests: 8 passed, 1 failed, 3 skipped\n");
});

test("a runner that left no report has failed tests", () => {
  const out = written("stdout");
  written("stderr");
  expect(summarize([{ title: "pytest", ok: false, seconds: 1, ...pytestReport().report() }])).toBe(1);
  expect(out()).toBe("tests: 0 passed, 1 failed, 0 skipped\n");
});
