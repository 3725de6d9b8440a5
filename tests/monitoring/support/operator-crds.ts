import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onPath, run } from "./tools.ts";

const MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
const FOLDER = "example/prometheus-operator-crd";
const KINDS = ["servicemonitors", "podmonitors", "prometheusrules"];

/** Files with the Prometheus Operator's own CRDs, from its Go module. @returns undefined where that cannot be had */
export async function operatorCrds(): Promise<string[] | undefined> {
  if (onPath("go") === undefined) return undefined;
  const scratch = await mkdtemp(join(tmpdir(), "crds-"));
  try {
    const { stdout } = await run("go", ["mod", "download", "-json", MODULE], {
      cwd: scratch,
      env: { ...process.env, GOFLAGS: "-mod=mod", GO111MODULE: "on" },
    });
    const { Dir } = JSON.parse(stdout) as { Dir: string };
    const files = KINDS.map((kind) => join(Dir, FOLDER, `monitoring.coreos.com_${kind}.yaml`));
    return files.every((file) => existsSync(file)) ? files : undefined;
  } catch {
    return undefined;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
