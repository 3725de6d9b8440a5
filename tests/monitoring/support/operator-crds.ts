import { existsSync } from "node:fs";
import { join } from "node:path";
import { goModule } from "../../support/go-module.ts";

const MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
const FOLDER = "example/prometheus-operator-crd";
const KINDS = ["servicemonitors", "podmonitors", "prometheusrules"];

/** Files with the Prometheus Operator's own CRDs, from its Go module. @returns undefined where that cannot be had */
export async function operatorCrds(): Promise<string[] | undefined> {
  const directory = await goModule(MODULE);
  if (directory === undefined) return undefined;
  const files = KINDS.map((kind) => join(directory, FOLDER, `monitoring.coreos.com_${kind}.yaml`));
  return files.every((file) => existsSync(file)) ? files : undefined;
}
