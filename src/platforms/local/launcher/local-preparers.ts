import { chmod, chown, mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ReleaseFacts } from "../../../ports/launcher.ts";
import type {
  MigrateCommand,
  PreparerDatabase,
  PreparerResult,
  Preparers,
  WarmPreparer,
} from "../../../ports/preparers.ts";
import { confinedCommand, helperIn, newId, pythonPath, type Means } from "./confinement.ts";
import { Preparer, preparerArguments } from "./preparer.ts";

/** As for shards; each preparer has a user of its own too, and a directory that goes with it. */
export interface PreparerConfinement {
  means: Means;
  /** Where their directories are made. */
  directory: string;
  readable: readonly string[];
}

/** Removes its directory when it is closed. */
class TidyPreparer implements WarmPreparer {
  readonly #preparer: Preparer;
  readonly #directory: string;

  constructor(preparer: Preparer, directory: string) {
    this.#preparer = preparer;
    this.#directory = directory;
  }

  template(database: PreparerDatabase): Promise<PreparerResult> {
    return this.#preparer.template(database);
  }

  migrate(command: MigrateCommand): Promise<PreparerResult> {
    return this.#preparer.migrate(command);
  }

  async close(): Promise<void> {
    await this.#preparer.close();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Preparers as child processes. */
export class LocalPreparers implements Preparers {
  readonly #runtimePath: string;
  readonly #installSynapse: (release: string) => Promise<{ python: string; facts: ReleaseFacts }>;
  readonly #confinement: PreparerConfinement | undefined;
  readonly #args: string[];
  readonly #installModules: ((release: string, python: string) => Promise<string>) | undefined;

  /**
   * @param runtimePath the directory that has the package `multi_synapse`
   * @param installSynapse makes sure of a release, and tells its Python
   * @param installModules makes sure of more packages for a release, and tells their directory
   * @param allowUntestedReleases releases that may run though the runtime was never tested with them
   */
  constructor(
    runtimePath: string,
    installSynapse: (release: string) => Promise<{ python: string; facts: ReleaseFacts }>,
    confinement?: PreparerConfinement,
    allowUntestedReleases: string[] = [],
    installModules?: (release: string, python: string) => Promise<string>,
  ) {
    this.#installModules = installModules;
    this.#confinement = confinement;
    this.#runtimePath = runtimePath;
    this.#installSynapse = installSynapse;
    this.#args = preparerArguments(allowUntestedReleases);
  }

  async start(release: string, commandMs?: number): Promise<WarmPreparer> {
    const { python } = await this.#installSynapse(release);
    const env = { PYTHONPATH: pythonPath(this.#runtimePath, await this.#installModules?.(release, python)) };
    if (!this.#confinement) return Preparer.start({ python, args: this.#args, env, commandMs });
    const { means, directory, readable } = this.#confinement;
    await mkdir(directory, { recursive: true });
    await chmod(directory, means.users ? 0o711 : 0o700);
    const own = await mkdtemp(join(directory, "preparer-"));
    try {
      const id = newId();
      if (means.users) await chown(own, id, id);
      const [program, ...args] = confinedCommand(means, helperIn(this.#runtimePath), [python, ...this.#args], {
        owner: means.users ? { id, shared: id } : undefined,
        read: [this.#runtimePath, ...readable],
        write: [own],
      });
      const more = { ...env, HOME: own, TMPDIR: own };
      const preparer = await Preparer.start({ python: program, args, cwd: own, env: more, commandMs });
      return new TidyPreparer(preparer, own);
    } catch (error) {
      await rm(own, { recursive: true, force: true });
      throw error;
    }
  }
}
