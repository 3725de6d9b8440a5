import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import {
  refuseUnsupportedRelease,
  TESTED_RELEASES,
} from "../../../src/platforms/local/toolchain/supported-releases.ts";

it("knows the same releases as the runtime", () => {
  const [oldest, newest] = TESTED_RELEASES;
  expect(readFileSync("multi_synapse/release.py", "utf8")).toContain(`TESTED = ("${oldest}", "${newest}")`);
});

it("takes tested releases, their fixes and what lies between, and what an operator names", () => {
  for (const release of ["1.157.2", "1.157.9", "1.160.0", "1.163.2", "1.163.7", "2.0.0rc1"])
    expect(() => refuseUnsupportedRelease(release, ["2.0.0rc1"]), release).not.toThrow();
});

it("refuses older and newer ones and release candidates, and says what to do", () => {
  for (const release of ["1.99.0", "1.156.0", "1.164.0", "1.163.3rc1", "2.0.0"])
    expect(() => refuseUnsupportedRelease(release, ["1.100.0"]), release).toThrow(
      expect.objectContaining({
        code: "UnsupportedRelease",
        message: expect.stringMatching(/1\.157\.2 to 1\.163\.2.*allowUntestedReleases/),
      }),
    );
});
