import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const PROGRAM = resolve(import.meta.dirname, "../../bin/synapse-shards.mjs");
/** Says on stderr, at the end, which files were loaded. */
const WATCH = `import { registerHooks } from "node:module";
const files = [];
registerHooks({ load: (url, context, next) => (files.push(url), next(url, context)) });
process.on("exit", () => process.stderr.write(files.join("\\n")));`;

test("a command loads what it needs alone: no reader of YAML, and none of the API's schemas", async () => {
  const hook = `data:text/javascript,${encodeURIComponent(WATCH)}`;
  const { stderr } = await promisify(execFile)(process.execPath, ["--import", hook, PROGRAM, "completion", "bash"]);
  const files = stderr.split("\n").filter((url) => url.startsWith("file:"));
  expect(files.some((url) => url.endsWith("/src/cli/program.ts"))).toBe(true);
  const heavy = files.filter((url) => /node_modules\/(?:zod|yaml|croner)\/|src\/api\/schemas/.test(url));
  expect(heavy).toEqual([]);
  expect(files.length).toBeLessThan(150);
});
