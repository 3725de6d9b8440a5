import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { nearestReleases, refuseUnknownRelease } from "../../../src/platforms/local/toolchain/known-releases.ts";
import { temporaryDirectory } from "./support.ts";

const KNOWN = ["1.164.0", "1.163.2", "1.163.1", "1.163.0", "1.162.0", "1.99.0"];

it("refuses a release that is not on the index, and names the nearest", async () => {
  const cache = await temporaryDirectory();
  await expect(refuseUnknownRelease("1.163.9", cache, async () => KNOWN)).rejects.toMatchObject({
    code: "UnknownRelease",
    message: "matrix-synapse 1.163.9 is not a release on PyPI; the nearest are 1.163.0, 1.163.1, 1.163.2",
  });
  expect(nearestReleases("1.165.0", KNOWN)).toEqual(["1.163.1", "1.163.2", "1.164.0"]);
});

it("lets a release pass that is on the index, is installed, or cannot be looked up", async () => {
  const cache = await temporaryDirectory();
  await expect(refuseUnknownRelease("1.164.0", cache, async () => KNOWN)).resolves.toBeUndefined();
  await expect(
    refuseUnknownRelease("1.163.9", cache, () => Promise.reject(new Error("no network"))),
  ).resolves.toBeUndefined();
  await mkdir(join(cache, "synapse-1.163.9"));
  await writeFile(join(cache, "synapse-1.163.9/installed.json"), "{}");
  await expect(refuseUnknownRelease("1.163.9", cache, async () => KNOWN)).resolves.toBeUndefined();
});
