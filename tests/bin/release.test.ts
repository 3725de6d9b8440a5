import { expect, test } from "vitest";
import { notesOf, problemsOf, versions } from "../../bin/release.ts";

const CHANGELOG =
  "# Changelog\n\n## [Unreleased]\n\n## [9.8.7] - 2030-01-01\n\n### Added\n- A thing.\n\n## [9.8.6] - 2029-01-01\n";

test("every place names the same version", () => {
  const found = versions();
  expect(found).toHaveLength(9);
  expect(new Set(found.map(({ version }) => version)).size, JSON.stringify(found)).toBe(1);
  expect(found[0]?.version).toMatch(/^\d+\.\d+\.\d+/);
});

test("a tag that does not fit the versions, or has no notes, is refused with every reason", () => {
  const problems = problemsOf("v9.8.6", CHANGELOG);
  expect(problems).toHaveLength(versions().length + 1);
  expect(problems[0]).toContain("package.json has the version");
  expect(problems.at(-1)).toBe("CHANGELOG.md has no section [9.8.6]");
  expect(problemsOf("9.8.7", CHANGELOG)).toEqual(["9.8.7 is not a release's tag, such as v1.2.3 or v1.2.3-rc.1"]);
});

test("the notes of a release are its section of the changelog", () => {
  expect(notesOf("v9.8.7", CHANGELOG)).toBe("### Added\n- A thing.");
  expect(notesOf("v9.8.5", CHANGELOG)).toBeUndefined();
});
