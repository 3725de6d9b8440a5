import type { Command } from "commander";
import type { ClusterStatus } from "../../controller/service/cluster-service.ts";
import { VERSION } from "../../model/project.ts";
import { CliError } from "../errors.ts";
import { withClient, type GlobalOptions } from "../options.ts";
import { show } from "../format.ts";
import { fields } from "../output.ts";

export function addVersion(program: Command): void {
  program
    .command("version")
    .description("print the version of this program, and of the cluster if one runs")
    .action(async (_options, command: Command) => {
      const { output } = command.optsWithGlobals<GlobalOptions>();
      const server = await versionOfCluster(command);
      show(output, { client: VERSION, server }, () =>
        fields([
          ["Client", VERSION],
          ["Server", server ?? "none runs here"],
        ]),
      );
    });
}

async function versionOfCluster(command: Command): Promise<string | null> {
  let version: string | null = null;
  try {
    await withClient(command, async (client) => {
      ({ version } = await client.call<ClusterStatus>("GET", "/v1/status", { has: ["version"] }));
    });
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
  }
  return version;
}
