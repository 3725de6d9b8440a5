import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MINIMAL, merged, render, type Values, withoutHelm } from "./support/matrix-stack.ts";

const CHARTS = resolve(import.meta.dirname, "../../charts");
/** What the API server takes as a label's value. */
const LABEL = /^(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?$/;
/** As Flux has it of a chart that it took from a registry: the version, and the digest's first 12 digits. */
const VERSION = "0.1.0+0123456789ab";

/** @returns the labels of all objects, and of the pods that they make */
function labelsOf(value: unknown, found: string[] = []): string[] {
  if (typeof value !== "object" || value === null) return found;
  for (const [key, inner] of Object.entries(value)) {
    if (key === "labels" && typeof inner === "object" && inner !== null) found.push(...Object.values<string>(inner));
    else labelsOf(inner, found);
  }
  return found;
}

describe.skipIf(withoutHelm)("labels", () => {
  let directory = "";
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "charts-"));
  });
  afterAll(() => rm(directory, { recursive: true }));

  const tenant = { synapse: { asTenantHook: { enabled: true, clusterId: "synapse-shards", namespace: "shards" } } };
  it.each<[string, Values]>([
    ["synapse-shards", {}],
    ["matrix-stack", merged(MINIMAL, tenant)],
    ["matrix-stack", MINIMAL],
  ])("are labels also where the chart's version has a build (%s)", async (name, values) => {
    await promisify(execFile)("helm", ["package", join(CHARTS, name), "--version", VERSION, "-d", directory]);
    const chart = join(directory, `${name}-${VERSION}.tgz`);
    const labels = labelsOf(await render({ chart, release: "release", namespace: "shards" }, values));
    expect(labels).toContain(`${name}-0.1.0_0123456789ab`);
    expect(labels.filter((label) => !LABEL.test(label))).toEqual([]);
  });
});
