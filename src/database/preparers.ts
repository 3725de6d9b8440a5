import type { ImageFacts } from "../launcher/launcher.ts";
import { Preparer, type MigrateCommand, type PreparerResult } from "./preparer.ts";
import type { PreparerDatabase } from "./template.ts";

/** A preparer (docs/control-api.md) that has imported its release, wherever it runs. Takes one command at a time. Close it in any case. */
export interface WarmPreparer {
  /** Makes the whole schema in an empty database. @throws UserError, PreparerError */
  template(database: PreparerDatabase): Promise<PreparerResult>;
  /** Claims the fence for a shard, then brings the schema up to its release. @throws UserError, PreparerError */
  migrate(command: MigrateCommand): Promise<PreparerResult>;
  /** Ends it. Idempotent. */
  close(): Promise<void>;
}

/** Where preparers come from. */
export interface Preparers {
  /** @param commandMs bounds a command @throws UserError, PreparerError */
  start(version: string, commandMs?: number): Promise<WarmPreparer>;
}

/** Preparers as child processes. */
export class LocalPreparers implements Preparers {
  readonly #runtimePath: string;
  readonly #installSynapse: (version: string) => Promise<{ python: string; facts: ImageFacts }>;

  /**
   * @param runtimePath the directory that has the package `multi_synapse`
   * @param installSynapse makes sure of a release, and tells its Python
   */
  constructor(
    runtimePath: string,
    installSynapse: (version: string) => Promise<{ python: string; facts: ImageFacts }>,
  ) {
    this.#runtimePath = runtimePath;
    this.#installSynapse = installSynapse;
  }

  async start(version: string, commandMs?: number): Promise<WarmPreparer> {
    const { python } = await this.#installSynapse(version);
    return Preparer.start({ python, env: { PYTHONPATH: this.#runtimePath }, commandMs });
  }
}
