import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findPython } from "../../../src/platforms/local/toolchain/python.ts";
import {
  cacheDirectory,
  DEFAULT_RELEASE,
  ensureSynapse,
  lockFileOf,
  RUNTIME_PACKAGES,
} from "../../../src/platforms/local/toolchain/toolchain.ts";
import {
  ensureVirtualEnvironment,
  type EnvironmentSpec,
} from "../../../src/platforms/local/toolchain/virtual-environment.ts";
import { temporaryDirectory } from "./support.ts";

/** An environment without packages: everything but the download is real. */
function emptyEnvironment(directory: string, more: Partial<EnvironmentSpec> = {}): EnvironmentSpec {
  return {
    directory: join(directory, "env"),
    title: "an empty environment",
    installs: [],
    check: "import sys, json\nprint(json.dumps({'prefix': sys.prefix}))",
    ...more,
  };
}

test("the cache is where its user can write and PostgreSQL's user can read", () => {
  // Prevents: root's programs below /root, which nobody else can run.
  expect(cacheDirectory({}, 0)).toBe("/var/cache/synapse-shards");
  expect(cacheDirectory({ XDG_CACHE_HOME: "/x" }, 1000)).toBe("/x/synapse-shards");
  expect(cacheDirectory({ SYNAPSE_SHARDS_CACHE: "/y", XDG_CACHE_HOME: "/x" }, 0)).toBe("/y");
});

test("what is no version is refused before anything is run", async () => {
  // Prevents: a tenant's version getting into pip's arguments or a path as something else.
  for (const version of ["1.2", "latest", "../../etc", "--index-url=x", "1.163.2 evil"]) {
    await expect(ensureSynapse(version)).rejects.toMatchObject({ code: "UnknownRelease" });
  }
});

test("an environment is made once, by one of those who want it", async () => {
  // Prevents: two processes installing into one directory; a second installation at each start.
  const spec = emptyEnvironment(await temporaryDirectory());
  const steps: string[] = [];
  const onProgress = (step: string) => steps.push(step);
  const [first, second] = await Promise.all([
    ensureVirtualEnvironment(spec, { onProgress }),
    ensureVirtualEnvironment(spec, { onProgress }),
  ]);
  expect(first).toEqual(second);
  expect(first.facts).toEqual({ prefix: spec.directory });
  expect(steps.filter((step) => step.startsWith("making"))).toHaveLength(1);
  expect(steps.filter((step) => step.includes("waiting for it"))).toHaveLength(1);
  await ensureVirtualEnvironment(spec, { onProgress: (step) => expect.unreachable(step) });
});

test("makes an interrupted environment again, and adopts one made by hand", async () => {
  // Prevents: half an installation taken for a whole one, and a whole one wiped while others run from it.
  const spec = emptyEnvironment(await temporaryDirectory());
  await ensureVirtualEnvironment(spec, {});
  const marker = join(spec.directory, "marker");
  writeFileSync(marker, "");
  rmSync(join(spec.directory, "installed.json"));
  await ensureVirtualEnvironment(spec, {});
  expect(existsSync(marker)).toBe(true);

  rmSync(join(spec.directory, "installed.json"));
  writeFileSync(join(spec.directory, "installed.begun"), "");
  await ensureVirtualEnvironment(spec, {});
  expect(existsSync(marker)).toBe(false);
  expect(existsSync(join(spec.directory, "installed.begun"))).toBe(false);
});

test("one whose imports fail is no success, and is tried again", async () => {
  // Prevents: a stamp on a broken environment, which would stay broken.
  const spec = emptyEnvironment(await temporaryDirectory(), { check: "import no_such_module" });
  await expect(ensureVirtualEnvironment(spec, {})).rejects.toMatchObject({
    code: "Environment",
    message: expect.stringContaining("no_such_module"),
  });
  expect(existsSync(join(spec.directory, "installed.json"))).toBe(false);
  await expect(ensureVirtualEnvironment({ ...spec, check: "print('{}')" }, {})).resolves.toMatchObject({ facts: {} });
});

test("an index that cannot be reached is not a release that does not exist", async () => {
  // Prevents: telling somebody without network that their Synapse version is misspelt.
  const directory = await temporaryDirectory();
  const unreachable = ["--no-index", "--find-links", join(directory, "nothing")];
  const release = { name: "matrix-synapse", version: "1.163.2" };
  const spec = emptyEnvironment(directory, { release, installs: [[...unreachable, "matrix-synapse==1.163.2"]] });
  await expect(ensureVirtualEnvironment(spec, {})).rejects.toMatchObject({ code: "Environment" });
});

test("what is installed is readable for others whatever the umask", async () => {
  // Prevents: PostgreSQL's programs that its user cannot read, because `up` works with a closed umask.
  const before = process.umask(0o077);
  try {
    const spec = emptyEnvironment(join(await temporaryDirectory(), "new"));
    await ensureVirtualEnvironment(spec, {});
    for (const path of [join(spec.directory, ".."), spec.directory, join(spec.directory, "bin")]) {
      expect(statSync(path).mode & 0o005).toBe(0o005);
    }
  } finally {
    process.umask(before);
  }
});

test("a Python that does not do is named, with what to install", async () => {
  // Prevents: a stack trace, or a wrong guess, where Python is missing or too old.
  const directory = await temporaryDirectory();
  const fake = join(directory, "python3");
  writeFileSync(fake, "#!/bin/sh\necho 3 9 True True True\n", { mode: 0o755 });
  const before = process.env["SYNAPSE_SHARDS_PYTHON"];
  try {
    process.env["SYNAPSE_SHARDS_PYTHON"] = fake;
    await expect(findPython()).rejects.toMatchObject({
      code: "Environment",
      message: expect.stringMatching(/is version 3\.9.*apt install/),
    });
    process.env["SYNAPSE_SHARDS_PYTHON"] = join(directory, "absent");
    await expect(findPython()).rejects.toMatchObject({
      message: expect.stringContaining("no usable Python found: install"),
    });
  } finally {
    if (before === undefined) delete process.env["SYNAPSE_SHARDS_PYTHON"];
    else process.env["SYNAPSE_SHARDS_PYTHON"] = before;
  }
});

test("the default release is installed from a list with hashes, which has all that it needs", () => {
  const list = readFileSync(lockFileOf(DEFAULT_RELEASE)!, "utf8");
  const names = RUNTIME_PACKAGES.map((requirement) => requirement.replace(/[<>=[].*/, ""));
  for (const name of [...names, "synapse-s3-storage-provider"])
    expect(list).toMatch(new RegExp(`^${name}==\\S+ \\\\$`, "m"));
  expect(list).toContain(`matrix-synapse==${DEFAULT_RELEASE} \\\n    --hash=sha256:`);
  expect(lockFileOf("1.0.0")).toBeUndefined();
});

test("a package that is not the one in the list is not installed", async () => {
  const directory = await temporaryDirectory();
  const lockFile = join(directory, "lock.txt");
  writeFileSync(lockFile, `tqdm==4.67.1 \\\n    --hash=sha256:${"0".repeat(64)}\n`);
  const failure = ensureVirtualEnvironment(emptyEnvironment(directory, { lockFile }), {});
  // Where the index cannot be reached, it is not installed either.
  await expect(failure).rejects.toMatchObject({ code: "Environment", message: expect.stringMatching(/HASH|hash|pip/) });
});

test("an environment whose packages change is changed from the list with hashes, too", async () => {
  const directory = await temporaryDirectory();
  await ensureVirtualEnvironment(emptyEnvironment(directory), {});
  const lockFile = join(directory, "lock.txt");
  writeFileSync(lockFile, `tqdm==4.67.1 \\\n    --hash=sha256:${"0".repeat(64)}\n`);
  const changed = emptyEnvironment(directory, { lockFile, installs: [["tqdm"]] });
  await expect(ensureVirtualEnvironment(changed, {})).rejects.toMatchObject({ code: "Environment" });
});
