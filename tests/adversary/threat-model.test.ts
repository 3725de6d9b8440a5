import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = resolve(import.meta.dirname, "../..");
/** Where the adversary's suite is. */
const SUITE = ["tests/adversary", "multi_synapse/tests/adversary"];

interface Row {
  what: string;
  tests: string[];
}

/** Rows of the first table below a heading: what they are about, and the tests that they name, with their folders. */
function rowsBelow(file: string, heading: string): Row[] {
  const text = `\n${readFileSync(join(ROOT, file), "utf8")}`;
  const at = text.indexOf(`\n${heading}\n`);
  if (at < 0) throw new Error(`${file} has no ${heading}`);
  const lines = text
    .slice(at + heading.length + 2)
    .split(/\n#+ /)[0]!
    .split("\n");
  return lines
    .filter((line) => line.startsWith("| "))
    .slice(2)
    .map((line) => {
      const cells = line.slice(1, -1).split(" | ");
      return { what: cells[0]!.trim(), tests: namesIn(cells.at(-1)!) };
    });
}

/** Names in a cell. One without a folder is beside the one before it. */
function namesIn(cell: string): string[] {
  let folder = "";
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => {
    const path = name.includes("/") ? name : join(folder, name);
    folder = dirname(path);
    return path;
  });
}

const TABLES = [
  ["SECURITY.md", "### Boundaries, and what is promised at each"],
  ["docs/isolation.md", "## How it is tested"],
  ["tests/adversary/README.md", "# The adversary's suite"],
] as const;

describe.each(TABLES)("%s", (file, heading) => {
  const rows = rowsBelow(file, heading);

  it("names a test of each line, and none that is gone", () => {
    expect(rows.length).toBeGreaterThan(5);
    expect(rows.filter(({ tests }) => tests.length === 0).map(({ what }) => what)).toEqual([]);
    const gone = rows.flatMap(({ what, tests }) =>
      tests.filter((test) => !existsSync(join(ROOT, test))).map((test) => `${what}: ${test}`),
    );
    expect(gone).toEqual([]);
  });
});

it("each test of the suite belongs to a line of the threat model or of the promises", () => {
  const named = TABLES.slice(0, 2).flatMap(([file, heading]) => rowsBelow(file, heading).flatMap(({ tests }) => tests));
  const all = SUITE.flatMap((folder) =>
    readdirSync(join(ROOT, folder))
      .filter((name) => /\.test\.ts$|^test_.*\.py$/.test(name))
      .map((name) => `${folder}/${name}`),
  ).filter((path) => path !== "tests/adversary/threat-model.test.ts");
  expect(all.length).toBeGreaterThan(4);
  expect(all.filter((path) => !named.includes(path))).toEqual([]);
});

it("reads a name without a folder as one beside the one before it", () => {
  expect(namesIn("`tests/a/b.test.ts`, `c.test.ts`, `x/y/`, `d.py`")).toEqual([
    "tests/a/b.test.ts",
    "tests/a/c.test.ts",
    "x/y/",
    "x/d.py",
  ]);
});
