import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { JsonFile } from "../../../src/api/access/json-file.ts";
import { writeAtomically } from "../../../src/platforms/local/files.ts";

const FILES = join(import.meta.dirname, "../../../src/platforms/local/files.ts");

test("a file stays as it was where the disk has no space for the new one", () => {
  const directory = mkdtempSync(join(tmpdir(), "files-"));
  const file = join(directory, "accounts.json");
  writeAtomically(file, "the old one");
  // A limit of 8 KiB for files, as a disk that fills half-way has one; SIGXFSZ is ignored, so that a write is short or fails.
  const program = `import { writeAtomically } from ${JSON.stringify(FILES)}; writeAtomically(${JSON.stringify(file)}, "x".repeat(20_000));`;
  const shell = `ulimit -f 8; trap '' XFSZ; exec "$0" --input-type=module-typescript -e "$1"`;
  expect(() => execFileSync("bash", ["-c", shell, process.execPath, program], { stdio: "pipe" })).toThrow("EFBIG");
  expect(readFileSync(file, "utf8")).toBe("the old one");
  expect(readdirSync(directory)).toEqual(["accounts.json"]);
});

test("what cannot be read is not written over", () => {
  const file = join(mkdtempSync(join(tmpdir(), "files-")), "tokens.json");
  writeFileSync(file, '[{"name": "ada"');
  const problems: string[] = [];
  const write = (text: string): void => writeAtomically(file, text);
  const known = { file, write, what: "tokens", onProblem: (message: string) => problems.push(message) };
  const tokens = new JsonFile<string[]>(known, [], (json) => json as string[]);
  expect(() => tokens.write(["bob"], ["bob"])).toThrow("cannot be read, so nothing is changed");
  expect(readFileSync(file, "utf8")).toBe('[{"name": "ada"');
  expect(problems).toHaveLength(1);
  writeFileSync(file, '["ada"]');
  tokens.write(["ada", "bob"], ["ada", "bob"]);
  expect(tokens.read()).toEqual(["ada", "bob"]);
});
