import { existsSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { ClusterConfigSchema } from "../../../src/model/cluster-config.ts";
import { TenantModules, type ModulePackage } from "../../../src/platforms/local/toolchain/tenant-modules.ts";
import { DEFAULT_RELEASE, ensureSynapse } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { temporaryDirectory } from "./support.ts";

const LDAP: ModulePackage = {
  name: "matrix-synapse-ldap3",
  version: "0.4.0",
  hashes: ["sha256:bf080037230d2af5fd3639cb87266de65c1cad7a68ea206278c5b4bf9c1a17f3"],
};
const WRONG: ModulePackage = { ...LDAP, hashes: [`sha256:${"0".repeat(64)}`] };

let python: string;
beforeAll(async () => void ({ python } = await ensureSynapse(DEFAULT_RELEASE)), 120_000);

it(
  "installs a package by name, version and hash, once; and takes it away with its name",
  { timeout: 120_000 },
  async () => {
    const directory = join(await temporaryDirectory(), "modules");
    const steps: string[] = [];
    const onProgress = (step: string) => void steps.push(step);
    const install = (packages: ModulePackage[]) =>
      new TenantModules(directory, packages).install("1.163.2", python, { onProgress });
    await install([LDAP]);
    const installed = join(directory, "1.163.2", "ldap_auth_provider.py");
    expect(existsSync(installed)).toBe(true);
    // Nothing that it depends on: only what is named has a hash.
    expect(existsSync(join(directory, "1.163.2", "ldap3"))).toBe(false);
    expect(steps).toEqual(["downloading matrix-synapse-ldap3 for Synapse 1.163.2"]);
    await install([LDAP]);
    expect(steps).toHaveLength(1);

    // What is there stays until there is something else.
    await expect(install([WRONG])).rejects.toMatchObject({
      code: "Environment",
      message: expect.stringMatching(/`modules`.*matrix-synapse-ldap3.* is not one of its hashes .*bf080037/),
    });
    await expect(install([{ ...LDAP, version: "99.0" }])).rejects.toMatchObject({
      message: expect.stringMatching(/no wheel of matrix-synapse-ldap3==99.0/),
    });
    expect(existsSync(installed)).toBe(true);
    expect(readdirSync(directory).toSorted()).toEqual(["1.163.2", readlinkSync(join(directory, "1.163.2"))]);

    await install([]);
    expect(readdirSync(directory)).toEqual([]);
  },
);

it(
  "installs what shards, which are other users, can read, although nothing else is for others",
  { timeout: 120_000 },
  async () => {
    const directory = join(await temporaryDirectory(), "modules");
    const before = process.umask(0o077);
    try {
      await new TenantModules(directory, [LDAP]).install("1.163.2", python);
    } finally {
      process.umask(before);
    }
    for (const path of ["", "1.163.2"]) expect(statSync(join(directory, path)).mode & 0o777).toBe(0o755);
    expect(statSync(join(directory, "1.163.2", "ldap_auth_provider.py")).mode & 0o444).toBe(0o444);
  },
);

it("says what is missing and leaves the shard to its other tenants", { timeout: 120_000 }, async () => {
  const modules = new TenantModules(join(await temporaryDirectory(), "modules"), [WRONG]);
  await expect(modules.ensure("1.163.2", python)).resolves.toMatch(/modules\/1\.163\.2$/);
  expect(modules.problems()).toEqual([expect.stringContaining("matrix-synapse-ldap3")]);
});

it("refuses a package without a hash, without one version, or named twice", () => {
  const { name, version, hashes } = LDAP;
  for (const modules of [
    [{ name, version }],
    [{ name, version, hashes: [] }],
    [{ name, version, hashes: ["sha256:1234"] }],
    [{ name, version: ">=0.3", hashes }],
    [{ name: "--index-url=http://x", version, hashes }],
    [{ name: "https://example.org/x.whl", version, hashes }],
    [LDAP, { ...LDAP, name: "Matrix_Synapse.LDAP3" }],
  ])
    expect(ClusterConfigSchema.safeParse({ modules }).success, JSON.stringify(modules)).toBe(false);
  expect(ClusterConfigSchema.parse({ modules: [LDAP] }).modules).toEqual([LDAP]);
});
