import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../../../model/errors.ts";
import { pipEnvironment } from "../environment.ts";
import { findPython } from "./python.ts";
import { runCommand } from "./run-command.ts";
import { cacheDirectory } from "./toolchain.ts";

/** The answer is awaited by a person's request; an index that takes longer is asked again when the release is installed. */
const INDEX_MS = 10_000;
const NAMED = 3;

/**
 * Refuses a release that is neither installed nor on the package index. Passes where the index cannot be asked: installing it says what is wrong.
 * @throws UserError UnknownRelease, which names the nearest
 */
export async function refuseUnknownRelease(
  release: string,
  cacheDir = cacheDirectory(),
  list: (cache: string) => Promise<string[]> = listReleases,
): Promise<undefined> {
  if (isInstalled(release, cacheDir)) return undefined;
  const known = await list(cacheDir).catch((): string[] => []);
  if (known.length === 0 || known.includes(release)) return undefined;
  throw new UserError(
    "UnknownRelease",
    `matrix-synapse ${release} is not a release on PyPI; the nearest are ${nearestReleases(release, known).join(", ")}`,
  );
}

export function isInstalled(release: string, cacheDir = cacheDirectory()): boolean {
  return existsSync(join(cacheDir, `synapse-${release}`, "installed.json"));
}

/** @returns the few next to it, the lowest first */
export function nearestReleases(release: string, known: readonly string[]): string[] {
  const [wanted] = [numberOf(release)];
  return known
    .toSorted((a, b) => Math.abs(numberOf(a) - wanted) - Math.abs(numberOf(b) - wanted))
    .slice(0, NAMED)
    .toSorted((a, b) => numberOf(a) - numberOf(b));
}

function numberOf(release: string): number {
  const [major = 0, minor = 0, patch = 0] = release.split(".").map((part) => Number.parseInt(part, 10));
  return major * 1e8 + minor * 1e4 + patch;
}

async function listReleases(cacheDir: string): Promise<string[]> {
  const base = await findPython();
  // Debian's Python may have no pip of its own; the environments that are there have one.
  const python = base.pip === "own" ? base.program : join(cacheDir, "postgres/bin/python");
  const { code, stdout } = await runCommand(python, ["-m", "pip", "index", "versions", "matrix-synapse"], {
    env: pipEnvironment(),
    signal: AbortSignal.timeout(INDEX_MS),
  });
  const versions = code === 0 ? /^\s*Available versions: (.*)$/m.exec(stdout)?.[1] : undefined;
  return versions?.split(",").map((version) => version.trim()) ?? [];
}
