import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, expect, it } from "vitest";
import { parse } from "yaml";
import { checkConfig, readConfigFile } from "../../src/model/config-file.ts";
import { ClusterConfigSchema, policyOf } from "../../src/model/cluster-config.ts";

const directory = mkdtempSync(join(tmpdir(), "config-"));
afterAll(() => rmSync(directory, { recursive: true }));

function read(text: string) {
  const file = join(directory, "cluster.yaml");
  writeFileSync(file, text);
  return readConfigFile(file, ClusterConfigSchema);
}

it("has the product's defaults", async () => {
  expect(await read("")).toMatchObject({
    maxShardsPerSynapseImageTag: 5,
    maxTenantsPerShard: 25,
    avgShardsLoadRedistributionThreshold: 15,
  });
});

it("has the settings and defaults that the README shows", () => {
  const readme = readFileSync(resolve(import.meta.dirname, "../../README.md"), "utf8");
  const example = /```yaml\n(maxShards[\s\S]*?)```/.exec(readme)?.[1] ?? "";
  expect(checkConfig(parse(example), ClusterConfigSchema, "README.md")).toEqual(ClusterConfigSchema.parse({}));
});

it.each([
  ["maxTenantsPerShard: lots", 'maxTenantsPerShard: expected number, but "lots" was given'],
  ["maxTenantsPerShard: 0", "maxTenantsPerShard: Too small: expected number to be >=1, but 0 was given"],
  ["maxTenantsPerShard: 2.5", "maxTenantsPerShard: expected int, but 2.5 was given"],
  ["maxTenantPerShard: 5", "maxTenantPerShard: no such setting; did you mean maxTenantsPerShard? (allowed: maxShards"],
  ["gateway: {prot: 1}", "gateway.prot: no such setting; did you mean port? (allowed in gateway: host, port, tlsPort,"],
  [
    "gateway: {parking: {seconds: 1}}",
    "gateway.parking.seconds: no such setting (allowed in gateway.parking: maxRequests,",
  ],
  ["nothing: 5", "nothing: no such setting (allowed: maxShards"],
  ["gateway: {port: 70000}", "gateway.port: Too big: expected number to be <=65535, but 70000 was given"],
  ["api: {trustedProxies: [0.0.0.0/0]}", "api.trustedProxies.0: not every address: name your proxies"],
  ["api: {trustedProxies: ['::/0']}", "api.trustedProxies.0: not every address: name your proxies"],
  ["gateway: 5", "gateway: expected object, but 5 was given"],
  ["release: latest", 'release: a release of matrix-synapse such as 1.163.2, but "latest" was given'],
  ["- a", 'the document: expected object, but ["a"] was given'],
])("refuses %j with its path, what was given and what is allowed", async (text, message) => {
  await expect(read(text)).rejects.toMatchObject({
    code: "InvalidConfig",
    message: expect.stringContaining(message),
  });
});

it("says in one sentence what is wrong with a file that is broken or missing", async () => {
  await expect(read("a: [1")).rejects.toMatchObject({
    code: "InvalidConfig",
    message: expect.stringMatching(/not YAML.*line 1/),
  });
  await expect(readConfigFile(join(directory, "none.yaml"), ClusterConfigSchema)).rejects.toMatchObject({
    code: "InvalidConfig",
  });
});

it.each([
  ["larger than its bound", `# ${"x".repeat(70_000)}`, /larger than 64 KiB/],
  [
    "an alias bomb",
    `a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [${"*a,".repeat(40)}]\nc: &c [${"*b,".repeat(40)}]\nd: [${"*c,".repeat(40)}]`,
    /alias/,
  ],
  ["nested without end", "[".repeat(60_000), /not YAML/],
])("refuses what is %s in bounded time", async (_what, text, words) => {
  const startedAt = performance.now();
  await expect(read(text)).rejects.toMatchObject({ code: "InvalidConfig", message: expect.stringMatching(words) });
  expect(performance.now() - startedAt).toBeLessThan(20_000);
});

it("lets the number of shards follow the cores, upwards only", async () => {
  const most = async (text: string, cores: number) => policyOf(await read(text), cores).maxShardsPerSynapseImageTag;
  expect(await most("", 16)).toBe(5);
  expect(await most("shardsFollowCores: true", 16)).toBe(16);
  expect(await most("shardsFollowCores: true", 2), "places are not taken away").toBe(5);
});

it("refuses maintenance windows that never open, and says why", async () => {
  const window = (schedule: string) => read(`maintenanceWindows: [{schedule: "${schedule}", durationMinutes: 60}]`);
  expect((await window("0 2 * * *")).maintenanceWindows).toEqual([
    { schedule: "0 2 * * *", durationMinutes: 60, timezone: "UTC" },
  ]);
  await expect(window("0 2 * *")).rejects.toThrow(/maintenanceWindows.*five fields/s);
  await expect(window("0 0 30 2 *")).rejects.toThrow(/never comes about/);
});
