import { EXIT } from "./errors.ts";
import { run } from "./run.ts";

process.once("SIGINT", () => process.exit(EXIT.interrupted));
// A reader that has seen enough (`… | head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) =>
  process.exit(error.code === "EPIPE" ? EXIT.ok : EXIT.failed),
);

const exitCode = await run(process.argv.slice(2));
// A command may have set a code of its own.
if (exitCode !== EXIT.ok) process.exitCode = exitCode;
