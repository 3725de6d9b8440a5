import { useQuery } from "@tanstack/react-query";
import { statusQuery } from "../api/queries.ts";
import { duration } from "../ui/format.ts";
import { Card, Page } from "../ui/page.tsx";
import { Waiting } from "../ui/states.tsx";
import { Ago } from "../ui/time.tsx";
import { useMay } from "../api/session.ts";
import { Accounts } from "./settings/accounts.tsx";
import { Tokens } from "./settings/tokens.tsx";

export function Settings() {
  const status = useQuery(statusQuery);
  const { data } = status;
  const isAdmin = useMay("admin");
  return (
    <Page
      title="Settings"
      lead="What the cluster runs with. It is changed in its configuration file, or the chart’s values, and shown here only."
    >
      {isAdmin && <Accounts />}
      {isAdmin && <Tokens />}
      {!data && <Waiting query={status} what="the settings" />}
      {data && (
        <div className="columns">
          <Card title="This controller">
            <Facts
              facts={[
                ["Version", data.version],
                ["Started", <Ago key="started" at={data.startedAt} />],
                ["Release of new tenants", data.release || "the fleet’s"],
                ["Gateways connected", String(data.gateways.length)],
              ]}
            />
          </Card>
          <Card title="Placing">
            <Facts
              facts={[
                ["maxShardsPerSynapseImageTag", data.policy.maxShardsPerSynapseImageTag],
                ["maxTenantsPerShard", data.policy.maxTenantsPerShard],
                ["avgShardsLoadRedistributionThreshold", data.policy.avgShardsLoadRedistributionThreshold],
                ["consolidateAfterSeconds", duration(data.policy.consolidateAfterSeconds)],
                ["maxConcurrentMoves", data.policy.maxConcurrentMoves],
              ]}
            />
          </Card>
          <Card title="Sleep">
            <Facts
              facts={[
                [
                  "hibernation.afterIdleSeconds",
                  data.policy.hibernation.afterIdleSeconds === 0
                    ? "never, unless a tenant has its own"
                    : duration(data.policy.hibernation.afterIdleSeconds),
                ],
                ["hibernation.minAwakeSeconds", duration(data.policy.hibernation.minAwakeSeconds)],
                ["hibernation.maxConcurrentWakes", data.policy.hibernation.maxConcurrentWakes],
              ]}
            />
          </Card>
          <Card title="Load">
            <Facts
              facts={[
                [
                  "balancing.cpuTarget",
                  data.policy.balancing.cpuTarget === 0 ? "off" : `${data.policy.balancing.cpuTarget} of a core`,
                ],
                ["balancing.averageSeconds", duration(data.policy.balancing.averageSeconds)],
                ["balancing.coolDownSeconds", duration(data.policy.balancing.coolDownSeconds)],
                ["balancing.tenantRestSeconds", duration(data.policy.balancing.tenantRestSeconds)],
                ["balancing.movesPerHour", data.policy.balancing.movesPerHour],
              ]}
            />
          </Card>
        </div>
      )}
    </Page>
  );
}

function Facts({ facts }: { facts: [string, React.ReactNode][] }) {
  return (
    <dl className="facts">
      {facts.map(([name, value]) => (
        <div key={name} style={{ display: "contents" }}>
          <dt>{/^[a-z]/.test(name) ? <code>{name}</code> : name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
