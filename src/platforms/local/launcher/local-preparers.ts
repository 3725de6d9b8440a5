import type { ImageFacts } from "../../../ports/launcher.ts";
import type { Preparers, WarmPreparer } from "../../../ports/preparers.ts";
import { Preparer } from "./preparer.ts";

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
