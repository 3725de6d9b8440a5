/** What the CLI ends with; part of its contract, see `--help`. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  timeout: 4,
  interrupted: 130,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export const EXIT_CODES_HELP = `Exit codes:
  0    done
  1    the request failed; the reason is on stderr
  2    wrong usage: an unknown command or option, a name, value or configuration that is not allowed,
       a file that cannot be read
  3    no such tenant, shard, context or code
  4    not done in time; it may still be done later
  130  interrupted with Ctrl-C`;

/** Ends the CLI with one line on stderr and an exit code. Everything else that is thrown is a bug. */
export class CliError extends Error {
  readonly exitCode: ExitCode;
  constructor(exitCode: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "CliError";
    this.exitCode = exitCode;
  }
}

/** Nobody answers at the API's address; a command that waits may try again. */
export class Unreachable extends CliError {
  constructor(message: string, options?: ErrorOptions) {
    super(EXIT.failed, message, options);
    this.name = "Unreachable";
  }
}
