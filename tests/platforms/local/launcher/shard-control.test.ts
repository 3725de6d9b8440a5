import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll } from "vitest";
import { LocalLauncher } from "../../../../src/platforms/local/launcher/local-launcher.ts";
import { DEFAULT_RELEASE, ensureSynapse } from "../../../../src/platforms/local/toolchain/toolchain.ts";
import { untilAnswers } from "../../../ports/launcher-contract.ts";
import { describeShardControlContract } from "../../../ports/shard-control-contract.ts";

const ROOT = resolve(import.meta.dirname, "../../../..");
const NAME = `${DEFAULT_RELEASE}-0`;

const directory = await mkdtemp(join(tmpdir(), "shards-control-"));
const launcher = new LocalLauncher({
  directory,
  runtimePath: ROOT,
  installSynapse: (release) => ensureSynapse(release),
});

afterAll(async () => {
  await launcher.kill(NAME);
  await rm(directory, { recursive: true, force: true });
});

// One process serves the suite as long as none of its tests ends it: each takes seconds to come up.
describeShardControlContract("a shard of this machine", async () => {
  await launcher.start(NAME, DEFAULT_RELEASE);
  await untilAnswers(launcher, NAME);
  const seen = await launcher.observe(NAME);
  if (seen.state !== "running") throw new Error(`the shard is ${seen.state}`);
  const control = await launcher.client(NAME, seen.address);
  return {
    control,
    name: NAME,
    release: DEFAULT_RELEASE,
    end: () => launcher.kill(NAME),
    close: () => control.close(),
  };
});
