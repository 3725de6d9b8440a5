import { describe, expect, test } from "vitest";
import { explainPipFailure } from "../../../src/platforms/local/toolchain/pip-failure.ts";

const RELEASE = { name: "matrix-synapse", version: "9.9.9" };

describe("what pip's failure means", () => {
  // Prevents: "there is no such release" said to somebody whose network is down, and the reverse.
  test("others were seen: there is no such release", () => {
    const error = explainPipFailure(
      [
        "ERROR: Could not find a version that satisfies the requirement matrix-synapse==9.9.9 (from versions: 1.163.1, 1.163.2)",
        "ERROR: No matching distribution found for matrix-synapse==9.9.9",
      ],
      RELEASE,
    );
    expect(error).toMatchObject({ code: "UnknownRelease", message: "matrix-synapse 9.9.9 is not a release on PyPI" });
  });

  test("none were seen: the index was not reached", () => {
    const error = explainPipFailure(
      [
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: Connection refused'",
        "ERROR: Could not find a version that satisfies the requirement matrix-synapse==9.9.9 (from versions: none)",
        "ERROR: No matching distribution found for matrix-synapse==9.9.9",
      ],
      RELEASE,
    );
    expect(error.code).toBe("Environment");
    expect(error.message).toContain("Connection refused");
  });

  test("another Python is needed", () => {
    const error = explainPipFailure(
      [
        "ERROR: Ignored the following versions that require a different python version: 9.9.8 Requires-Python >=3.20; 9.9.9 Requires-Python >=3.20",
        "ERROR: Could not find a version that satisfies the requirement matrix-synapse==9.9.9 (from versions: 1.163.2)",
      ],
      RELEASE,
    );
    expect(error).toMatchObject({ code: "Environment" });
    expect(error.message).toContain("does not run on this version of Python");
  });

  test("a dependency is missing: that is not the release's absence", () => {
    const error = explainPipFailure(
      [
        "ERROR: Could not find a version that satisfies the requirement greenlet (from versions: none)",
        "ERROR: No matching distribution found for greenlet",
      ],
      RELEASE,
    );
    expect(error).toMatchObject({ code: "Environment" });
    expect(error.message).toContain("No matching distribution found for greenlet");
  });
});
