import type { ReleaseFacts } from "../../../ports/launcher.ts";
import type { Preparers, WarmPreparer } from "../../../ports/preparers.ts";
import { Preparer } from "./preparer.ts";

/** Preparers as child processes. */
export class LocalPreparers implements Preparers {
  readonly #runtimePath: string;
  readonly #installSynapse: (release: string) => Promise<{ python: string; facts: ReleaseFacts }>;

  /**
   * @param runtimePath the directory that has the package `multi_synapse`
   * @param installSynapse makes sure of a release, and tells its Python
   */
  constructor(
    runtimePath: string,
    installSynapse: (release: string) => Promise<{ python: string; facts: ReleaseFacts }>,
  ) {
    this.#runtimePath = runtimePath;
    this.#installSynapse = installSynapse;
  }

  async start(release: string, commandMs?: number): Promise<WarmPreparer> {
    const { python } = await this.#installSynapse(release);
    return Preparer.start({ python, env: { PYTHONPATH: this.#runtimePath }, commandMs });
  }
}
