import type { Command } from "commander";
import { dataDirectory } from "../client.ts";
import type { GlobalOptions } from "../options.ts";

export function addUp(program: Command): void {
  program
    .command("up")
    .description("run a cluster on this machine, in the foreground; Ctrl-C stops everything in order")
    .option("--config <file>", "the cluster's configuration file, YAML (default: every setting's default)")
    .option("--demo", "create the example tenants clinic-a, clinic-b and clinic-c")
    .option("--recover", "where the store is lost or damaged, go on with the copy that the cluster keeps of it")
    .action(async (options: { config?: string; demo?: boolean; recover?: boolean }, command: Command) => {
      const { data } = command.optsWithGlobals<GlobalOptions>();
      // It takes part of Ctrl-C itself, and only this command needs what it imports.
      process.removeAllListeners("SIGINT");
      const { runUp } = await import("../../platforms/local/up/up.ts");
      const { config: configFile, demo = false, recover = false } = options;
      await runUp({ configFile, dataDir: dataDirectory(data), demo, recover });
    });
}
