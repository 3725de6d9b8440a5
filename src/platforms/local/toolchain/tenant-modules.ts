import { createHash } from "node:crypto";
import { existsSync, realpathSync } from "node:fs";
import { chmod, mkdir, readdir, readlink, rename, rm, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Logger } from "pino";
import type { ClusterConfig } from "../../../model/cluster-config.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import { makeDirectory } from "../files.ts";
import { explainPipFailure } from "./pip-failure.ts";
import { findPython } from "./python.ts";
import { pipOf, runWithOpenUmask, type Progress } from "./virtual-environment.ts";

export type ModulePackage = ClusterConfig["modules"][number];

/** Where the index cannot be reached, pip takes its time to say so: not at each start of a shard. */
const AGAIN_MS = 60_000;

/**
 * The packages that a cluster's configuration names for its shards, in a directory for each release beside Synapse's own environment, which all
 * clusters of the machine share. `RELEASE` is a link to the present packages: a shard that runs finds a new package there without a restart.
 */
export class TenantModules {
  readonly #directory: string;
  readonly #packages: readonly ModulePackage[];
  readonly #log: Logger | undefined;
  readonly #running = new Map<string, Promise<void>>();
  readonly #problems = new Map<string, { sentence: string; at: number }>();

  constructor(directory: string, packages: readonly ModulePackage[], log?: Logger) {
    this.#directory = directory;
    this.#packages = packages;
    this.#log = log;
    makeDirectory(directory, 0o755);
  }

  /**
   * Makes the packages of a release what the configuration says; nothing to do where they are.
   * @throws UserError Environment
   */
  async install(release: string, python: string, progress: Progress = {}): Promise<void> {
    const under = (name: string) => join(this.#directory, name);
    const wanted = `${release}-${this.#fingerprint(python)}`;
    const present = await readlink(under(release)).catch(() => undefined);
    if (this.#packages.length === 0) {
      if (present !== undefined) await rm(under(release), { force: true });
    } else if (present !== wanted || !existsSync(under(wanted))) {
      await this.#fill(under(`${wanted}.new`), release, python, progress);
      await rm(under(wanted), { recursive: true, force: true });
      await rename(under(`${wanted}.new`), under(wanted));
      await rm(under(`${release}.new`), { force: true });
      await symlink(wanted, under(`${release}.new`));
      await rename(under(`${release}.new`), under(release));
    } else return;
    const keep = this.#packages.length === 0 ? undefined : wanted;
    for (const name of await readdir(this.#directory))
      if (name.startsWith(`${release}-`) && name !== keep) await rm(under(name), { recursive: true, force: true });
  }

  /** As `install`, without an exception: a shard serves its other tenants without the packages. @returns the directory of the release's packages */
  async ensure(release: string, python: string): Promise<string> {
    const failed = this.#problems.get(release);
    if (!failed || performance.now() - failed.at > AGAIN_MS) {
      const running = this.#running.get(release) ?? this.#attempt(release, python);
      this.#running.set(release, running);
      await running.finally(() => this.#running.delete(release));
    }
    return join(this.#directory, release);
  }

  /** A sentence for each release that lacks its packages. */
  problems(): string[] {
    return [...this.#problems.values()].map(({ sentence }) => sentence);
  }

  async #attempt(release: string, python: string): Promise<void> {
    try {
      await this.install(release, python);
      this.#problems.delete(release);
    } catch (error) {
      const sentence = messageOf(error);
      this.#log?.error({ release, problem: sentence }, "modules are missing");
      this.#problems.set(release, { sentence, at: performance.now() });
    }
  }

  async #fill(directory: string, release: string, python: string, progress: Progress): Promise<void> {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    // Shards, which are other users, read it, whatever the umask is.
    await chmod(directory, 0o755);
    const list = `${directory}.txt`;
    const lines = this.#packages.map(({ name, version, hashes }) =>
      [`${name}==${version}`, ...hashes.map((hash) => `--hash=${hash}`)].join(" "),
    );
    await writeFile(list, `${lines.join("\n")}\n`);
    try {
      progress.onProgress?.(`downloading ${this.#packages.map(({ name }) => name).join(", ")} for Synapse ${release}`);
      const [program, ...pip] = pipOf(python, await findPython(progress.signal));
      // Building a package would run code of others that no hash vouches for.
      const args = ["install", "--progress-bar", "off", "--only-binary", ":all:", "--no-deps", "--require-hashes"];
      const { code, lines: said } = await runWithOpenUmask(
        program,
        [...pip, ...args, "--target", directory, "--requirement", list],
        progress,
      );
      if (code === 0) return;
      await rm(directory, { recursive: true, force: true });
      throw new UserError(
        "Environment",
        `the packages in \`modules\` of the configuration cannot be installed for Synapse ${release}: ${problemIn(said)}`,
      );
    } finally {
      await rm(list, { force: true });
    }
  }

  /** Wheels may be of one version of Python. */
  #fingerprint(python: string): string {
    const version = basename(realpathSync(python));
    return createHash("sha256").update(version).update(JSON.stringify(this.#packages)).digest("hex").slice(0, 16);
  }
}

/** pip's words for what an operator gets wrong, else its last ones. */
function problemIn(lines: readonly string[]): string {
  const at = lines.findIndex((line) => line.includes("DO NOT MATCH THE HASHES"));
  if (at !== -1) {
    const [named] = lines.slice(at + 1).map((line) => /^\s*(\S+==\S+|https?:\S+)/.exec(line)?.[1]);
    const got = lines.map((line) => /Got\s+([0-9a-f]{64})/.exec(line)?.[1]).find((hash) => hash !== undefined);
    const which = lines
      .slice(at)
      .map((line) => /^\s+(\S+==\S+)/.exec(line)?.[1])
      .find((name) => name !== undefined);
    return `the file of ${which ?? named ?? "a package"} is not one of its hashes (it has sha256:${got ?? "?"})`;
  }
  const missing = lines
    .map((line) => /No matching distribution found for (\S+)/.exec(line)?.[1])
    .find((name) => name !== undefined);
  if (missing !== undefined)
    return `there is no wheel of ${missing} for this Python (only wheels are installed), or the package index cannot be reached`;
  return explainPipFailure(lines).message;
}
