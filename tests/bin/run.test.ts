import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";

const ROOT = resolve(import.meta.dirname, "../..");
const read = (file: string) => readFileSync(join(ROOT, file), "utf8");

test("a program that bin/run.mjs runs does its work also on Node 24, where it is imported and never the main module", () => {
  const named = ["package.json", "images/build", "docs/console.md"].flatMap((file) =>
    [...read(file).matchAll(/bin\/run\.mjs ([\w/.-]+\.ts)/g)].map(([, program = ""]) => program),
  );
  expect(named).toContain("console/build.ts");
  const idle = named.filter((program) => /^if \(import\.meta\.main\)/m.test(read(program)));
  expect(idle).toEqual([]);
});
