import ora, { type Ora } from "ora";
import pc from "picocolors";

/** The least time between two lines of a long step in a log file. */
const PLAIN_EVERY_MS = 5_000;
const NARROWEST = 20;

/** Progress for people: a spinner on a terminal, plain lines elsewhere, always on stderr. */
export class Steps {
  readonly #stream: NodeJS.WriteStream;
  #current: { title: string; spinner?: Ora } | undefined;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
  }

  /** Runs one step, showing what it reports and at the end how long it took. */
  async run<T>(title: string, work: (onProgress: (step: string) => void) => Promise<T>): Promise<T> {
    const startedAt = Date.now();
    // A pseudo-terminal may have no width; the spinner would then draw forever.
    const terminal = this.#stream.isTTY && this.#stream.columns >= NARROWEST;
    const spinner = terminal ? ora({ text: title, stream: this.#stream, discardStdin: false }).start() : undefined;
    this.#current = { title, spinner };
    let lastPlain = 0;
    const onProgress = (step: string) => {
      if (spinner) {
        spinner.text = `${title}: ${step}`;
      } else if (Date.now() - lastPlain > PLAIN_EVERY_MS) {
        lastPlain = Date.now();
        this.#stream.write(`  ${title}: ${step}\n`);
      }
    };
    try {
      const result = await work(onProgress);
      this.#end(spinner, true, `${title} ${pc.dim(`(${seconds(Date.now() - startedAt)})`)}`);
      return result;
    } catch (error) {
      this.#end(spinner, false, title);
      throw error;
    } finally {
      this.#current = undefined;
    }
  }

  /** A line of its own, which does not disturb the spinner. */
  line(text: string): void {
    const spinner = this.#current?.spinner;
    spinner?.stop();
    this.#stream.write(`${text}\n`);
    spinner?.start();
  }

  #end(spinner: Ora | undefined, ok: boolean, text: string): void {
    if (spinner) {
      if (ok) spinner.succeed(text);
      else spinner.fail(text);
    } else {
      this.#stream.write(`${ok ? "✓" : "✗"} ${text}\n`);
    }
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
