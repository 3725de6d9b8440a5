import type { Command } from "commander";
import type { ClusterStatus } from "../../controller/service/cluster-service.ts";
import { withClient } from "../options.ts";
import { show } from "../format.ts";
import { age, fields, plain, seconds, table } from "../output.ts";

/** As many ended moves as the picture shows. */
const MOVES_SHOWN = 5;

export function addStatus(program: Command): void {
  program
    .command("status")
    .description("show how the cluster is: tenants, shards, moves, problems")
    .action((_options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const status = await client.call<ClusterStatus>("GET", "/v1/status", { has: ["version", "policy", "tenants"] });
        show(output, status, () => picture(status));
      }),
    );
}

function picture(status: ClusterStatus): string {
  const { policy, problems } = status;
  const phases = Object.entries(status.tenants.byPhase).map(([phase, n]) => `${n} ${phase}`);
  const parts = [
    fields([
      ["Version", `${status.version}, up ${age(status.startedAt)}, new tenants get Synapse ${status.release}`],
      ["Tenants", phases.length === 0 ? "none" : `${status.tenants.total} (${phases.join(", ")})`],
      ["Gateways", `${status.gateways.length} connected`],
      [
        "Policy",
        `maxShardsPerSynapseImageTag ${policy.maxShardsPerSynapseImageTag}, maxTenantsPerShard ${policy.maxTenantsPerShard}, ` +
          `avgShardsLoadRedistributionThreshold ${policy.avgShardsLoadRedistributionThreshold}`,
      ],
    ]),
  ];
  if (status.imageTags.length > 0) {
    const rows = status.imageTags.map((tag) => [
      tag.version,
      String(tag.shards),
      String(tag.tenants),
      String(tag.capacity),
      tag.saturated ? "yes" : "no",
    ]);
    parts.push(table(["IMAGE TAG", "SHARDS", "TENANTS", "CAPACITY", "SATURATED"], rows));
  }
  if (status.movesInProgress.length > 0) {
    const rows = status.movesInProgress.map(({ tenant, move }) => [tenant, move.from, move.to, move.reason, move.step]);
    parts.push(table(["MOVING", "FROM", "TO", "REASON", "STEP"], rows));
  }
  if (status.recentMoves.length > 0) {
    const rows = status.recentMoves.slice(0, MOVES_SHOWN).map(({ tenant, result }) => {
      const { from, to, reason, outcome, blackoutSeconds, finishedAt } = result;
      return [tenant, from, to, reason, outcome, seconds(blackoutSeconds), age(finishedAt)];
    });
    parts.push(table(["MOVED", "FROM", "TO", "REASON", "OUTCOME", "BLACKOUT", "AGE"], rows));
  }
  const list = problems.map((problem) => `  ${plain(problem)}`).join("\n");
  parts.push(problems.length === 0 ? "No problems." : `Problems:\n${list}`);
  return parts.join("\n\n");
}
