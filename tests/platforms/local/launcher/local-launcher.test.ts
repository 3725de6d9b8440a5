import { readFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { LocalLauncher } from "../../../../src/platforms/local/launcher/local-launcher.ts";
import { DEFAULT_RELEASE, ensureSynapse } from "../../../../src/platforms/local/toolchain/toolchain.ts";
import { describeLauncherContract } from "../../../ports/launcher-contract.ts";

describeLauncherContract("child processes", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shards-launcher-"));
  const open = () =>
    new LocalLauncher({
      directory,
      runtimePath: resolve(import.meta.dirname, "../../../.."),
      installSynapse: (version, onProgress) => ensureSynapse(version, { onProgress }),
    });
  const launcher = open();
  const version = DEFAULT_RELEASE;
  const pidOf = async (shard: string) => Number(await readFile(join(directory, shard, "pid"), "utf8"));
  return {
    launcher,
    version,
    startsAgain: false,
    another: async () => open(),
    crash: async (shard) => void process.kill(await pidOf(shard), "SIGKILL"),
    close: async () => {
      await launcher.kill(`${version}-0`);
      await rm(directory, { recursive: true, force: true });
    },
  };
});
