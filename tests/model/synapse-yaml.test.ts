import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { YAML_BOUNDS, YamlProblem } from "../../src/model/bounded-yaml.ts";
import { readSynapseYaml } from "../../src/model/synapse-yaml.ts";
import { ensureSynapse } from "../../src/platforms/local/toolchain/toolchain.ts";

let python: ChildProcess;
let answers: AsyncIterator<string>;
beforeAll(async () => {
  const { python: executable } = await ensureSynapse("1.163.2");
  const script = join(import.meta.dirname, "support/read_yaml.py");
  python = spawn(executable, [script], { stdio: ["pipe", "pipe", "inherit"], env: { PYTHONUTF8: "1" } });
  answers = createInterface({ input: python.stdout! })[Symbol.asyncIterator]();
}, 300_000);
afterAll(() => void python?.stdin?.end());

type Answer = { value: unknown } | { error: string };

async function pythons(text: string): Promise<Answer> {
  python.stdin!.write(`${JSON.stringify(text)}\n`);
  return JSON.parse((await answers.next()).value as string) as Answer;
}

function ours(text: string): Answer {
  try {
    return { value: shown(readSynapseYaml(text)) };
  } catch (error) {
    if (!(error instanceof YamlProblem)) throw error;
    return { error: error.message };
  }
}

/** As tests/model/support/read_yaml.py prints it. PyYAML's floats that are whole are floats still. */
function shown(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shown);
  if (typeof value === "bigint") return `bigint ${value}`;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, shown(item)]));
}

/** Equal, where a number of ours may be a float of Python's. */
function isSame(mine: unknown, theirs: unknown): boolean {
  if (typeof theirs === "string" && theirs.startsWith("float ")) {
    const float = theirs.slice(6);
    if (typeof mine !== "number") return false;
    if (!Number.isFinite(mine)) return { nan: "NaN", inf: "Infinity", "-inf": "-Infinity" }[float] === String(mine);
    return Math.abs(mine - Number(float)) <= Math.abs(mine) * 1e-8;
  }
  if (Array.isArray(mine) && Array.isArray(theirs))
    return mine.length === theirs.length && mine.every((item, index) => isSame(item, theirs[index]));
  if (typeof mine !== "object" || typeof theirs !== "object" || mine === null || theirs === null)
    return mine === theirs;
  const [a, b] = [mine as Record<string, unknown>, theirs as Record<string, unknown>];
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && isSame(a[key], b[key]));
}

const SCALARS = [
  ..."5432 5_432 0x1538 0b1010 012470 08 1:30 1:30:15.5 +5 -5_4 1.5 1. .5 1e5 1.0e+5 -.inf .NaN 0o17 0_7 9007199254740993".split(
    " ",
  ),
  ..."yes Yes yES no on Off OFF y n true True tRue false ~ null Null nULL = << 2020-01-01 10.0.0.1".split(" "),
  ..."localhost db.example a,b 'it''s' \"q\\tq\" \"\\x41\" 'yes' \"5432\" !!str !!int !mine @at `tick %pct".split(" "),
  "",
  "!!str 5432",
  "!!int 5_432",
  "!!int '7'",
  "! 5432",
  "two words",
  "a: b",
  "a #b",
  "a#b",
  "- x",
  "? x",
  "a:b",
  "::1",
  "'[::1]'",
  "'a\n  b\n\n  c'",
  "a\n      b",
  "|\n      text\n      more\n",
  ">-\n      folded\n      more\n",
  "{a:1}",
  "[a, b,]",
  "{a, b: 1}",
  "*x",
  "*y",
  "&x 1",
  "&y {k: v}",
  "\t1",
  "1 ",
  "é",
  "\u{1F600}",
];
const KEYS = [
  "database",
  "args",
  "host",
  "port",
  "dbname",
  "name",
  "public_baseurl",
  "<<",
  "5432",
  "yes",
  "~",
  "=",
  '"quoted"',
  "'single'",
  "? host",
  "a b",
  "dsn",
  "service",
  "1.0",
  "1",
  "true",
];

const scalar = fc.constantFrom(...SCALARS);
const key = fc.constantFrom(...KEYS);
const flow: fc.Arbitrary<string> = fc.letrec<{ node: string }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    { weight: 4, arbitrary: scalar.filter((text) => !text.includes("\n")) },
    {
      weight: 2,
      arbitrary: fc
        .array(fc.tuple(key, tie("node")), { maxLength: 4 })
        .map((pairs) => `{${pairs.map(([k, v]) => `${k}: ${v}`).join(", ")}}`),
    },
    { weight: 1, arbitrary: fc.array(tie("node"), { maxLength: 4 }).map((items) => `[${items.join(", ")}]`) },
  ),
})).node;
const anchor = fc.constantFrom("", "", "", "&x ", "&y ");
const entry: fc.Arbitrary<(indent: string) => string> = fc.letrec<{ entry: (indent: string) => string }>((tie) => ({
  entry: fc.oneof(
    { maxDepth: 3 },
    {
      weight: 4,
      arbitrary: fc.tuple(key, anchor, flow).map(
        ([k, a, v]) =>
          (i: string) =>
            `${i}${k}: ${a}${v}\n`,
      ),
    },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom("# comment\n", "<<: *x\n", "<<: [*x, *y]\n", "\n")
        .map((line) => (i: string) => `${i}${line}`),
    },
    {
      weight: 2,
      arbitrary: fc.tuple(key, anchor, fc.array(tie("entry"), { minLength: 1, maxLength: 4 }), fc.boolean()).map(
        ([k, a, entries, list]) =>
          (i: string) =>
            `${i}${k}:${a === "" ? "" : ` ${a.trim()}`}\n${entries.map((one) => (list ? `${i}- ${one(`${i}  `).trimStart()}` : one(`${i}  `))).join("")}`,
      ),
    },
  ),
})).entry;
const text = fc
  .tuple(
    fc.constantFrom("", "", "", "---\n", "%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "\uFEFF"),
    fc.array(entry, { maxLength: 6 }),
  )
  .map(([head, entries]) => head + entries.map((one) => one("")).join(""));

describe("one reading of a configuration", () => {
  test("reads what PyYAML reads, or refuses: over generated documents with merge keys, numbers, booleans, duplicates and anchors", async () => {
    let both = 0;
    const runs = Number(process.env["YAML_RUNS"] ?? 2000);
    await fc.assert(
      fc.asyncProperty(text, async (document) => {
        const mine = ours(document);
        const theirs = await pythons(document);
        if (!("value" in mine) || !("value" in theirs)) return;
        both += 1;
        // An empty document, or `~`, is an empty configuration.
        expect(isSame(mine.value, theirs.value ?? {}), `${document}\n${JSON.stringify([mine, theirs])}`).toBe(true);
      }),
      { numRuns: runs },
    );
    // Else this test would show nothing.
    expect(both / runs).toBeGreaterThan(0.2);
  }, 120_000);

  test.each(SCALARS.filter((one) => !one.includes("\n")))(
    "reads the value %j as PyYAML does, or refuses it",
    async (one) => {
      for (const document of [
        `a: ${one}\n`,
        `a: [${one}]\n`,
        `a: {b: ${one}}\n`,
        `a:\n- ${one}\n`,
        `? ${one}\n: 1\n`,
      ]) {
        const [mine, theirs] = [ours(document), await pythons(document)];
        const isAlike = "error" in mine || "error" in theirs || isSame(mine.value, theirs.value);
        expect(isAlike, `${document}${JSON.stringify([mine, theirs])}`).toBe(true);
      }
    },
  );

  test.each(["5432", "5_432", "0x1538", "yes", "off", "1:30", "'x'", "1.5", "~", "text", "a:b", "{k: v}", "[1, 2]"])(
    "accepts the ordinary value %s",
    (one) => expect(ours(`a: ${one}`)).toHaveProperty("value"),
  );
});

const caseOf = (name: string) => readFileSync(join(import.meta.dirname, "cases", `${name}.txt`), "utf8");

describe("what broke an earlier version", () => {
  test("sees the database behind a merge key", () => {
    expect(readSynapseYaml(caseOf("merge-keys.yaml"))).toMatchObject({
      database: { args: { dbname: "tenant_neighbour" } },
    });
  });

  test.each(["a: {<<: {host: x, host: y}}", "a: {<<: [{host: x}, {host: y}]}", "a: {<<: {host: x}, <<: {host: y}}"])(
    "refuses %s, which versions of PyYAML read differently",
    (document) => expect(() => readSynapseYaml(document)).toThrow(/bring in a key twice/),
  );

  test("reads 5_432 as 5432", () => {
    expect(readSynapseYaml(caseOf("underscore-port.yaml"))).toMatchObject({ database: { args: { port: 5432 } } });
  });

  test("refuses an alias bomb within milliseconds, and says where it is", () => {
    const begin = process.threadCpuUsage();
    expect(() => readSynapseYaml(caseOf("alias-bomb.yaml"))).toThrow(
      /^line 5, column \d+: more than 50000 values, aliases counted/,
    );
    expect(process.threadCpuUsage(begin).user).toBeLessThan(500_000);
  });

  test("says where a text stops being YAML, without quoting it", () => {
    expect(() => readSynapseYaml(caseOf("not-yaml.yaml"))).toThrow(/^line 2, column 1: not YAML \(/);
    const secret = "password: hunter2\npassword: [hunter2";
    expect(() => readSynapseYaml(secret)).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining("hunter2") }),
    );
  });
});

describe("bounds", () => {
  test.each([
    ["too large", () => `a: ${"x".repeat(YAML_BOUNDS.size)}`, /larger than 256 KiB/],
    ["nested in brackets", () => "[".repeat(100_000), /nested deeper than 32 levels/],
    [
      "nested by indentation",
      () => Array.from({ length: 60 }, (_, i) => `${" ".repeat(i)}a:`).join("\n"),
      /nested deeper than 32 levels/,
    ],
    ["of too many values", () => `a: [${"1,".repeat(60_000)}]`, /more than 50000 values/],
    ["a cycle", () => "a: &x [*x]", /inside its own anchor/],
    [
      "merged again and again",
      () =>
        `a0: &a0 {${Array.from({ length: 500 }, (_, i) => `k${i}: 1`).join(", ")}}\n${Array.from({ length: 500 }, (_, i) => `a${i + 1}: &a${i + 1} {<<: *a${i}}`).join("\n")}`,
      /more than 50000 values/,
    ],
  ])("refuses a text that is %s", (_what, make, why) => {
    expect(() => readSynapseYaml(make())).toThrow(why);
  });

  const long: [string, (size: number) => string][] = [
    ["many keys", (n) => Array.from({ length: n / 8 }, (_, i) => `k${i}: 1`).join("\n")],
    ["one key again and again", (n) => "k: 1\n".repeat(n / 8)],
    ["a long plain text of many lines", (n) => `a: x\n${" x\n".repeat(n / 3)}`],
    ["a long quoted text of many lines", (n) => `a: "${"x\n ".repeat(n / 3)}"`],
    ["a long block text", (n) => `a: |\n${"  x\n".repeat(n / 4)}`],
    ["comments", (n) => "# x\n".repeat(n / 4)],
    ["empty lines", (n) => `a:\n${"\n".repeat(n)}  b: 1`],
    ["spaces", (n) => `a:${" ".repeat(n)}1`],
    ["tabs", (n) => `a:${"\t".repeat(n)}1`],
    ["anchors", (n) => Array.from({ length: n / 16 }, (_, i) => `k${i}: &a${i} 1`).join("\n")],
    ["question marks", (n) => "? a\n".repeat(n / 4)],
    ["colons", (n) => `a: ${":".repeat(n)}`],
    ["digits", (n) => `a: ${"1_".repeat(n / 2)}x`],
    ["sexagesimals", (n) => `a: 1${":1".repeat(n / 2)}`],
    ["commas", (n) => `a: [${",".repeat(n)}]`],
    ["open quotes", (n) => `a: ${"'a' ".repeat(n / 4)}`],
    ["document marks", (n) => "---\n".repeat(n / 4)],
    ["directives", (n) => "%A b\n".repeat(n / 5)],
    ["dashes", (n) => `a:\n${"- 1\n".repeat(n / 4)}`],
    ["escapes", (n) => `a: "${"\\x41".repeat(n / 4)}"`],
    ["carriage returns", (n) => `a: "${"\r".repeat(n)}"`],
  ];
  test.each(long)("takes time linear in the size of %s", (_what, make) => {
    // Of the processor, as the machine may be busy with other work.
    const time = (size: number) => {
      const document = make(size);
      const begin = process.threadCpuUsage();
      try {
        readSynapseYaml(document);
      } catch (error) {
        if (!(error instanceof YamlProblem)) throw error;
      }
      const { user, system } = process.threadCpuUsage(begin);
      return (user + system) / 1000;
    };
    time(10_000);
    const small = Math.min(time(10_000), time(10_000));
    const large = Math.min(time(120_000), time(120_000));
    // Twelve times as large: quadratic would be 144 times; small times are noise.
    expect(large).toBeLessThan(Math.max(small * 60, 500));
  });
});
