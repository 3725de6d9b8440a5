import { rmSync } from "node:fs";
import { type NodeProcessOptions, spawnNode, type Started, startNode, untilReady } from "./node-process.ts";
import type { Running } from "./supervisor.ts";

/** For a program: it loads what it needs, says so, and does nothing else until it is told to (`whenNeeded`). */
export const STANDBY = "--standby";

/** A second process of a part, which has its program in memory, and takes over at once when the first one ends. */
export class Standby {
  readonly #options: Omit<NodeProcessOptions, "signal">;
  #waiting: Started | undefined;
  #isLoaded = false;
  #isClosed = false;

  constructor(options: Omit<NodeProcessOptions, "signal">) {
    this.#options = options;
  }

  /** Whether one could take over now. */
  get isReady(): boolean {
    return this.#isLoaded && this.#waiting?.how() === undefined;
  }

  /** The one that waits serves, or one is started; then another one gets ready. @throws UserError Environment */
  async launch(signal: AbortSignal): Promise<Running> {
    const options = { ...this.#options, signal };
    const waiting = this.isReady ? this.#waiting : undefined;
    let running: Running;
    if (waiting) {
      this.#waiting = undefined;
      this.#isLoaded = false;
      rmSync(options.readyFile, { force: true });
      waiting.child.send("serve", () => {
        // Refused only by one that has ended, which is noticed anyway.
      });
      running = await untilReady(waiting, options);
    } else {
      running = await startNode(options);
    }
    this.#prepare();
    return running;
  }

  /** Nobody takes over any more. */
  close(): void {
    this.#isClosed = true;
    this.#waiting?.child.kill("SIGKILL");
  }

  /** One that ends while it waits is not replaced: the next launch then takes its time. */
  #prepare(): void {
    const isThere = this.#waiting !== undefined && this.#waiting.how() === undefined;
    if (this.#isClosed || isThere) return;
    const { args, outputFile } = this.#options;
    this.#isLoaded = false;
    this.#waiting = undefined;
    try {
      this.#waiting = spawnNode([...args, STANDBY], outputFile);
      this.#waiting.child.once("message", () => (this.#isLoaded = true));
    } catch {
      // No descriptor, no process, no disk: what serves goes on serving.
    }
  }
}
