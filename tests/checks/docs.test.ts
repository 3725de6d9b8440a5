import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { FINDING_CODES } from "../../src/model/tenant-check.ts";

it("docs/checks.md lists every code of a finding, with what it stands for", () => {
  const text = readFileSync("docs/checks.md", "utf8");
  const listed = [...text.matchAll(/^\| `([a-z0-9-]+-[a-z-]+)` \| (.*) \|$/gm)].map(([, code, meaning]) => [
    code,
    meaning,
  ]);
  expect(Object.fromEntries(listed)).toEqual(FINDING_CODES);
});
