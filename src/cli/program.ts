import { Command } from "commander";
import { addAccount } from "./commands/account.ts";
import { addApply, addDiff } from "./commands/apply.ts";
import { addAudit } from "./commands/audit.ts";
import { addBackup } from "./commands/backup.ts";
import { addCertificates } from "./commands/certificates.ts";
import { addCompletion } from "./commands/completion.ts";
import { addExplain } from "./commands/explain.ts";
import { addEvents } from "./commands/events.ts";
import { addHistory } from "./commands/history.ts";
import { addNotifications } from "./commands/notifications.ts";
import { addPlan } from "./commands/quotas.ts";
import { addFleet } from "./commands/fleet.ts";
import { addShard } from "./commands/shard.ts";
import { addContext } from "./commands/context.ts";
import { addStatus } from "./commands/status.ts";
import { addTenant } from "./commands/tenant.ts";
import { addDatabaseServers } from "./commands/tenant-database.ts";
import { addToken } from "./commands/token.ts";
import { addUp } from "./commands/up.ts";
import { VERSION } from "../model/project.ts";
import { addVersion } from "./commands/version.ts";
import { pathOf } from "./command-tree.ts";
import { CliError, EXIT, EXIT_CODES_HELP } from "./errors.ts";
import { examplesHelp } from "./examples.ts";
import { outputOption } from "./format.ts";

/** The CLI's commands. Each caller builds its own: to run it, to complete it, to document it. */
export function buildProgram(): Command {
  const program = new Command("synapse-shards")
    .description("Hosts many Matrix homeservers (real Synapse) in few processes.")
    // Inherited by the commands below, so it comes before them.
    .exitOverride()
    .showHelpAfterError("(add --help for what is allowed)")
    .configureHelp({ showGlobalOptions: true })
    .version(VERSION, "--version", "print the version of this program")
    .addOption(outputOption())
    .hook("preAction", (_program, command) => {
      if (command.optsWithGlobals()["output"] === "csv" && command.name() !== "usage")
        throw new CliError(EXIT.usage, "only tenant usage prints csv");
    })
    .option("--data <dir>", "the cluster's data directory (default: $SYNAPSE_SHARDS_DATA, else data in the checkout)")
    .option("--context <name>", "the cluster of this context (default: $SYNAPSE_SHARDS_CONTEXT, else the one in use)")
    .option("--server <url>", "the controller's API, instead of looking it up (default: $SYNAPSE_SHARDS_SERVER)")
    .option("--token-file <file>", "file with the API's token, for --server (default: $SYNAPSE_SHARDS_TOKEN_FILE)")
    .option("--ca-file <file>", "certificates to trust, PEM, for --server (default: $SYNAPSE_SHARDS_CA_FILE)")
    .addHelpText("after", `\n${EXIT_CODES_HELP}`)
    .addHelpText("afterAll", ({ command }) => (command.commands.length > 0 ? "" : examplesHelp(pathOf(command))));
  addUp(program);
  addTenant(program);
  addApply(program);
  addDiff(program);
  addPlan(program);
  addNotifications(program);
  addDatabaseServers(program);
  addShard(program);
  addBackup(program);
  addCertificates(program);
  addFleet(program);
  addStatus(program);
  addEvents(program);
  addHistory(program);
  addExplain(program);
  addToken(program);
  addAccount(program);
  addAudit(program);
  addContext(program);
  addCompletion(program);
  addVersion(program);
  return program;
}
