// The linter of `.github/workflows`, built once by Go into the cache.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "../src/platforms/local/toolchain/toolchain.ts";

const VERSION = "1.7.12";
/** It is built in less than a minute; do not wait longer for a module proxy that does not answer. */
const BUILD_MS = 5 * 60_000;

/** @returns the path of the program, or undefined if it is not there and Go is not either. @throws Error if the build fails */
export function ensureActionlint(): string | undefined {
  const program = join(cacheDirectory(), `actionlint-${VERSION}`);
  if (existsSync(program)) return program;
  if (spawnSync("go", ["version"]).error) return undefined;
  mkdirSync(cacheDirectory(), { recursive: true });
  const directory = mkdtempSync(join(cacheDirectory(), "actionlint-build-"));
  try {
    const { status, error, stderr } = spawnSync(
      "go",
      ["install", `github.com/rhysd/actionlint/cmd/actionlint@v${VERSION}`],
      { env: { ...process.env, GOBIN: directory, CGO_ENABLED: "0" }, encoding: "utf8", timeout: BUILD_MS },
    );
    if (status !== 0) throw new Error(`actionlint ${VERSION} could not be built: ${error?.message ?? stderr}`);
    // In one step, so that two runs at the same time do not meet.
    renameSync(join(directory, "actionlint"), program);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  return program;
}
