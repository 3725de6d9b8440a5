import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, expect, it } from "vitest";
import { parse } from "yaml";
import { ClusterConfigSchema, parseClusterConfig, readClusterConfig } from "../../src/model/cluster-config.ts";

const directory = mkdtempSync(join(tmpdir(), "config-"));
afterAll(() => rmSync(directory, { recursive: true }));

function read(text: string) {
  const file = join(directory, "cluster.yaml");
  writeFileSync(file, text);
  return readClusterConfig(file);
}

it("prevents other defaults than the product's", async () => {
  expect(await read("")).toMatchObject({
    maxShardsPerSynapseImageTag: 5,
    maxTenantsPerShard: 25,
    avgShardsLoadRedistributionThreshold: 15,
  });
});

it("prevents a README that shows settings which are not there, or other defaults", () => {
  const readme = readFileSync(resolve(import.meta.dirname, "../../README.md"), "utf8");
  const example = /```yaml\n(maxShards[\s\S]*?)```/.exec(readme)?.[1] ?? "";
  expect(parseClusterConfig(parse(example), "README.md")).toEqual(ClusterConfigSchema.parse({}));
});

it.each([
  ["maxTenantsPerShard: lots", 'maxTenantsPerShard: expected number, but "lots" was given'],
  ["maxTenantsPerShard: 0", "maxTenantsPerShard: Too small: expected number to be >=1, but 0 was given"],
  ["maxTenantsPerShard: 2.5", "maxTenantsPerShard: expected int, but 2.5 was given"],
  ["maxTenantPerShard: 5", "maxTenantPerShard: no such setting"],
  ["gateway: {prot: 1}", "gateway.prot: no such setting"],
  ["gateway: {port: 70000}", "gateway.port: Too big: expected number to be <=65535, but 70000 was given"],
  ["gateway: 5", "gateway: expected object, but 5 was given"],
  ["release: latest", 'release: a release of matrix-synapse such as 1.163.2, but "latest" was given'],
  ["- a", 'the document: expected object, but ["a"] was given'],
])(
  "prevents a guess at what is meant by %j: the error names path, what was given and what is allowed",
  async (text, message) => {
    await expect(read(text)).rejects.toMatchObject({
      code: "InvalidConfig",
      message: expect.stringContaining(message),
    });
  },
);

it("prevents a stack trace for a file that is broken or not there", async () => {
  await expect(read("a: [1")).rejects.toMatchObject({
    code: "InvalidConfig",
    message: expect.stringMatching(/not YAML.*line 1/),
  });
  await expect(readClusterConfig(join(directory, "none.yaml"))).rejects.toMatchObject({ code: "InvalidConfig" });
});
