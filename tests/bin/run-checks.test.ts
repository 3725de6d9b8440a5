import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { ROOT } from "../../src/model/project.ts";
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

test("tests are counted as their runners report them, and what failed is named, also a suite that could not begin", async () => {
  const [out, errors] = [written("stdout"), written("stderr")];
  const root = mkdtempSync(join(tmpdir(), "reported-"));
  onTestFinished(() => rmSync(root, { recursive: true }));
  writeFileSync(
    join(root, "a.test.js"),
    `test("keeps it", () => { throw new Error("lost\\nsince noon"); });
     test("counts", () => {});
     test.skip("later", () => {});
     describe("on a cluster", () => {
       beforeAll(() => { throw new Error("no cluster"); });
       test("runs", () => {});
     });`,
  );
  writeFileSync(join(root, "b.test.js"), `throw new Error("cannot be read");`);
  const { args, env, report } = vitestReport();
  const program = join(ROOT, "node_modules/vitest/vitest.mjs");
  const command = [process.execPath, program, "run", "--root", root, "--globals", ...args];
  const [vitest] = await runLanes([[{ title: "vitest", command, env, report }], []], process.env);
  const pytest = pytestReport();
  writeFileSync(
    pytest.args[0]!.slice("--junitxml=".length),
    `<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="5">` +
      `<testcase classname="tests.test_a" name="test_b[c &amp; d]" time="1"><failure message="lost &lt;1&gt;&#10;here">x</failure></testcase>` +
      `<testcase classname="tests.test_a" name="test_e" time="1" /></testsuite></testsuites>`,
  );
  expect(vitest).toMatchObject({ ok: false, counts: { passed: 1, failed: 1, skipped: 2 } });
  expect(vitest!.failed).toEqual(["a.test.js", "b.test.js"]);
  expect(pytest.report().failed).toEqual(["tests/test_a.py::test_b[c & d]"]);
  expect(summarize([vitest!, { title: "pytest", ok: false, seconds: 1, ...pytest.report() }])).toBe(1);
  expect(errors()).toContain("    tests/test_a.py::test_b[c & d]: lost <1>\n");
  expect(errors()).toContain("    a.test.js: keeps it: lost since noon\n");
  expect(errors()).toContain("    a.test.js: on a cluster: no cluster\n");
  expect(errors()).toContain("    b.test.js: cannot be read\n");
  expect(out()).toBe("tests: 4 passed, 2 failed, 3 skipped\n");
});

test("a runner that left no report has failed tests", () => {
  const out = written("stdout");
  written("stderr");
  expect(summarize([{ title: "pytest", ok: false, seconds: 1, ...pytestReport().report() }])).toBe(1);
  expect(out()).toBe("tests: 0 passed, 1 failed, 0 skipped\n");
});

describe("what failed is run again alone, once", () => {
  const failing = (failed: string[], again: Check["again"]): Check => ({
    ...check("tests", "process.exit(1)"),
    report: () => ({ counts: { passed: 7, failed: failed.length, skipped: 1 }, failures: ["a: why"], failed }),
    again,
  });

  test("passes, and is named as flaky, where it passes then", async () => {
    const [out, errors] = [written("stdout"), written("stderr")];
    const asked: string[][] = [];
    const again = (failed: string[]) => {
      asked.push(failed);
      return check("again", "");
    };
    const outcomes = await runLanes([[failing(["a"], again)], []], process.env);
    expect(asked).toEqual([["a"]]);
    expect(summarize(outcomes)).toBe(0);
    expect(errors()).toContain("✓ tests");
    expect(errors()).toContain("    flaky, passed when run again: a: why\n");
    expect(out()).toBe("tests: 8 passed, 0 failed, 1 skipped\n");
  });

  test.each<[string, string[], Check["again"]]>([
    ["it fails again", ["a"], () => check("again", "process.exit(1)")],
    ["it may not be run again", ["a"], () => undefined],
    ["too much failed", ["a", "b", "c", "d"], () => check("again", "")],
    ["what failed has no name", [], () => check("again", "")],
  ])("fails where %s", async (_, failed, again) => {
    const errors = written("stderr");
    written("stdout");
    const outcomes = await runLanes([[failing(failed, again)], []], process.env);
    expect(summarize(outcomes)).toBe(1);
    expect(errors()).toContain("    a: why\n");
    expect(errors()).not.toContain("flaky");
  });
});
