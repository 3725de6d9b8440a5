import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onPath, run } from "../monitoring/support/tools.ts";

/** Where the files of a Go module are, such as the CRDs that a project publishes. @returns undefined where it cannot be had */
export async function goModule(module: string): Promise<string | undefined> {
  if (onPath("go") === undefined) return undefined;
  const scratch = await mkdtemp(join(tmpdir(), "module-"));
  try {
    const { stdout } = await run("go", ["mod", "download", "-json", module], {
      cwd: scratch,
      env: { ...process.env, GOFLAGS: "-mod=mod", GO111MODULE: "on" },
    });
    return (JSON.parse(stdout) as { Dir: string }).Dir;
  } catch {
    return undefined;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
