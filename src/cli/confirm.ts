import { createInterface } from "node:readline/promises";
import { CliError, EXIT } from "./errors.ts";

interface Question {
  /** Ends with "?". */
  question: string;
  /** What is said where the answer is no. */
  otherwise: string;
  /** Why it is asked. Default: it cannot be undone. */
  why?: string;
  /** The command's own `--yes`. */
  yes: boolean | undefined;
}

/** Asks a person before what may not be meant; a script says `--yes`. @throws CliError where the answer is no, and where there is nobody to ask */
export async function confirm({ question, otherwise, why = "this cannot be undone", yes }: Question): Promise<void> {
  if (yes) return;
  if (process.stdin.isTTY !== true || process.stderr.isTTY !== true)
    throw new CliError(EXIT.usage, `${otherwise}: ${why}, and there is no terminal to ask at; give --yes`);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const interrupt = new AbortController();
  // At a terminal in raw mode Ctrl-C is a key, not a signal.
  terminal.once("SIGINT", () => interrupt.abort());
  terminal.once("close", () => interrupt.abort());
  try {
    const answer = await terminal
      .question(`${question} [y/N] `, { signal: interrupt.signal })
      .catch((error: unknown) => {
        if (!interrupt.signal.aborted) throw error;
        process.stderr.write("\n");
        throw new CliError(EXIT.interrupted, otherwise);
      });
    if (!/^y(es)?$/i.test(answer.trim())) throw new CliError(EXIT.failed, otherwise);
  } finally {
    terminal.close();
  }
}
