import { CommanderError } from "commander";
import { UserError, type ErrorCode } from "../model/errors.ts";
import { machineProblem } from "../model/machine-problem.ts";
import { CliError, EXIT } from "./errors.ts";
import { plain } from "./output.ts";
import { buildProgram } from "./program.ts";

/** What `up` refuses for being wrong in itself. */
const WRONG_INPUT = new Set<ErrorCode>(["InvalidInput", "InvalidConfig", "UnknownRelease", "UnsupportedRelease"]);

/** Runs a command, and says on stderr what goes wrong. @returns the exit code */
export async function run(args: string[]): Promise<number> {
  try {
    await buildProgram().parseAsync(args, { from: "user" });
    return EXIT.ok;
  } catch (error) {
    // Commander has said already what is wrong; asked for help or the version, nothing is.
    if (error instanceof CommanderError) return asked(error) ? EXIT.ok : EXIT.usage;
    if (error instanceof CliError) return complain(error.message, error.exitCode, error);
    if (error instanceof UserError)
      return complain(error.message, WRONG_INPUT.has(error.code) ? EXIT.usage : EXIT.failed, error);
    const problem = machineProblem(error);
    if (problem !== undefined) return complain(problem, EXIT.failed, error);
    return complain(
      `${error instanceof Error ? error.message : String(error)} (this is a bug; DEBUG=1 shows where)`,
      EXIT.failed,
      error,
    );
  }
}

function asked({ code }: CommanderError): boolean {
  return code === "commander.helpDisplayed" || code === "commander.version";
}

function complain(message: string, exitCode: number, error: unknown): number {
  process.stderr.write(`error: ${plain(message)}\n`);
  if (process.env["DEBUG"] && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return exitCode;
}
