import { existsSync, globSync, mkdirSync, writeFileSync } from "node:fs";
import { chmod, readFile, mkdtemp, rm, stat } from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { findMeans, helperIn } from "../../../../src/platforms/local/launcher/confinement.ts";
import { ForkServers } from "../../../../src/platforms/local/launcher/fork-server.ts";
import { LocalLauncher } from "../../../../src/platforms/local/launcher/local-launcher.ts";
import { copyRuntime } from "../../../../src/platforms/local/launcher/runtime-copy.ts";
import { TenantMedia } from "../../../../src/platforms/local/launcher/tenant-media.ts";
import { DEFAULT_RELEASE, ensureSynapse } from "../../../../src/platforms/local/toolchain/toolchain.ts";
import { describeLauncherContract, type Platform } from "../../../ports/launcher-contract.ts";

const ROOT = resolve(import.meta.dirname, "../../../..");
const SYSTEM_PYTHON = "/usr/bin/python3";

/** @param pythonFor the Python of a release, given the one that it is installed with and a directory to make things in */
async function open(
  pythonFor: (installed: string, directory: string) => string,
  { forks }: { forks: boolean },
): Promise<Platform> {
  const directory = await mkdtemp(join(tmpdir(), "shards-launcher-"));
  await chmod(directory, 0o711);
  const { python: installed, facts } = await ensureSynapse(DEFAULT_RELEASE);
  const python = pythonFor(installed, directory);
  const means = await findMeans({ python, helper: helperIn(ROOT), places: [directory] });
  const opened: ForkServers[] = [];
  const launcherOf = () => {
    const forkServers = forks ? new ForkServers() : undefined;
    if (forkServers) opened.push(forkServers);
    return new LocalLauncher({
      directory: join(directory, "shards"),
      runtimePath: copyRuntime(ROOT, join(directory, "runtime")),
      installSynapse: async () => ({ python, facts }),
      confinement: {
        means,
        media: new TenantMedia(join(directory, "media"), means.users),
        readable: [dirname(dirname(installed))],
      },
      ...(forkServers ? { forkServers } : {}),
      warn: (sentence) => {
        throw new Error(sentence);
      },
    });
  };
  const launcher = launcherOf();
  const version = DEFAULT_RELEASE;
  const pidOf = async (shard: string) => Number(await readFile(join(directory, "shards", shard, "pid"), "utf8"));
  return {
    launcher,
    version,
    startsAgain: false,
    another: async () => launcherOf(),
    crash: async (shard) => {
      const pid = await pidOf(shard);
      const { uid } = await stat(`/proc/${pid}`);
      if (means.users === (uid === 0)) throw new Error(`the shard runs as user ${uid}`);
      process.kill(pid, "SIGKILL");
    },
    close: async () => {
      await launcher.kill(`${version}-0`);
      for (const servers of opened) servers.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

describeLauncherContract("child processes", () => open((python) => python, { forks: false }));
describeLauncherContract("forked processes", () => open((python) => python, { forks: true }));

const canBeAnother = process.getuid?.() === 0 && existsSync(SYSTEM_PYTHON);
const minorOf = (python: string) =>
  execFileSync(python, ["-c", "import sys; print(sys.version_info[1])"], { encoding: "utf8" });

/** The packages as they are installed, run with a Python that every user can reach, whatever the installation was made with. */
function withSystemPython(installed: string, directory: string): string {
  const environment = join(directory, "environment");
  execFileSync(SYSTEM_PYTHON, ["-m", "venv", "--without-pip", environment]);
  const [packages] = globSync(join(environment, "lib/python3.*/site-packages"));
  const [present] = globSync(join(dirname(dirname(installed)), "lib/python3.*/site-packages"));
  mkdirSync(packages!, { recursive: true });
  writeFileSync(join(packages!, "present.pth"), `${present}\n`, { mode: 0o644 });
  execFileSync("chmod", ["-R", "a+rX", environment]);
  return join(environment, "bin/python");
}

if (canBeAnother) {
  const { python } = await ensureSynapse(DEFAULT_RELEASE);
  if (minorOf(python) === minorOf(SYSTEM_PYTHON))
    describeLauncherContract("forked processes of users of their own", () => open(withSystemPython, { forks: true }));
}
