import { CliError, EXIT, type ExitCode } from "./errors.ts";
import { note } from "./output.ts";

interface Work<A, T> {
  /** Asks for it; up to `atOnce` together. */
  begin(name: string): Promise<A>;
  /** Waits for it; one by one, because a terminal shows one progress at a time. */
  finish(name: string, asked: A): Promise<T>;
  /** Tells what was done, before what failed. */
  report(done: T[]): void;
}

/** A selector may name thousands. */
const AT_ONCE = 32;

/** Does something to several objects: what fails for one does not keep the others from it. @throws CliError of what failed */
export async function forEach<A, T>(
  names: readonly string[],
  { begin, finish, report }: Work<A, T>,
  atOnce = AT_ONCE,
): Promise<void> {
  const done: T[] = [];
  const errors: unknown[] = [];
  for (let first = 0; first < names.length; first += atOnce) {
    const some = names.slice(first, first + atOnce);
    const asked = await Promise.allSettled(some.map((name) => begin(name)));
    for (const [index, name] of some.entries()) {
      const answer = asked[index]!;
      try {
        if (answer.status === "rejected") throw answer.reason;
        done.push(await finish(name, answer.value));
      } catch (error) {
        errors.push(error);
      }
    }
  }
  report(done);
  const [first, ...rest] = errors;
  if (first === undefined) return;
  if (!(first instanceof CliError) || rest.some((error) => !(error instanceof CliError))) throw first;
  for (const error of rest as CliError[]) note(`error: ${error.message}`);
  const codes = new Set<ExitCode>((errors as CliError[]).map((error) => error.exitCode));
  throw codes.size === 1 ? first : new CliError(EXIT.failed, first.message, { cause: first });
}
