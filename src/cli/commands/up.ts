import type { Command } from "commander";
import { dataDirectory } from "../client.ts";
import type { GlobalOptions } from "../options.ts";

export function addUp(program: Command): void {
  program
    .command("up")
    .description("run a cluster on this machine, in the foreground; Ctrl-C stops everything in order")
    .option("--config <file>", "the cluster's configuration file, YAML (default: every setting's default)")
    .option("--demo", "create the example tenants clinic-a, clinic-b and clinic-c")
    .action(async (options: { config?: string; demo?: boolean }, command: Command) => {
      const { data } = command.optsWithGlobals<GlobalOptions>();
      // It takes part of Ctrl-C itself, and only this command needs what it imports.
      process.removeAllListeners("SIGINT");
      const { runUp } = await import("../../platforms/local/up/up.ts");
      await runUp({ configFile: options.config, dataDir: dataDirectory(data), demo: options.demo ?? false });
    });
}
