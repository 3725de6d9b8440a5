import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { sentence, type ClusterStatus, type Schemas } from "../api/client.ts";
import { problemsQuery, shardsQuery, statusQuery } from "../api/queries.ts";
import { useIsTenantAdmin } from "../api/session.ts";
import { Badge, Phase, phaseName, toneOf } from "../ui/badge.tsx";
import { count, counted, percent, seconds, widthOf } from "../ui/format.ts";
import { ObjectLink } from "../ui/object-link.tsx";
import { Card, Page } from "../ui/page.tsx";
import { Empty, Waiting } from "../ui/states.tsx";
import { Ago } from "../ui/time.tsx";
import { OverviewPlots } from "./overview/plots.tsx";
import { Words } from "../ui/words.tsx";
import { ScrollTable } from "../ui/scroll-table.tsx";

export function Overview() {
  const status = useQuery(statusQuery);
  return (
    <Page title="Overview">
      <Problems />
      {status.data ? <Cluster status={status.data} /> : <Waiting query={status} what="the cluster’s state" />}
    </Page>
  );
}

function Problems() {
  const problems = useQuery(problemsQuery);
  const { data } = problems;
  if (!data) return <Waiting query={problems} what="what is wrong" />;
  if (data.total === 0)
    return (
      <div className="notice" data-tone="good" role="status">
        <strong>All is well.</strong>
      </div>
    );
  return (
    <Card title={counted(data.total, "problem")} flush>
      <ul className="problems">
        {data.items.map((problem) => (
          <ProblemItem key={`${problem.object} ${problem.reason}`} problem={problem} />
        ))}
      </ul>
      {data.total > data.items.length && (
        <p className="empty">
          and {count(data.total - data.items.length)} more: <code>synapse-shards status</code> lists all
        </p>
      )}
    </Card>
  );
}

function ProblemItem({ problem }: { problem: Schemas["Problem"] }) {
  const { severity, object, message, action, runbook } = problem;
  return (
    <li>
      <Badge tone={severity === "Error" ? "bad" : "warn"}>{severity}</Badge>
      <div>
        <p className="what">{sentence(message)}</p>
        {action && (
          <p className="do">
            <Words text={sentence(action)} />
          </p>
        )}
      </div>
      <div className="links">
        {object && <ObjectLink object={object} />}
        {runbook && (
          <Link to="/runbooks/$name" params={{ name: runbook }}>
            Runbook
          </Link>
        )}
      </div>
    </li>
  );
}

function Cluster({ status }: { status: ClusterStatus }) {
  const isTenantAdmin = useIsTenantAdmin();
  const { tenants, imageTags, movesInProgress, gateways } = status;
  const { byPhase } = tenants;
  const shards = imageTags.reduce((sum, tag) => sum + tag.shards, 0);
  return (
    <>
      <dl className="figures">
        <Figure name="Tenants" value={count(tenants.total)} />
        <Figure name="Running" value={count(byPhase["Running"] ?? 0)} />
        <Figure name="Asleep" value={count(byPhase["Asleep"] ?? 0)} />
        <Figure name="Shards" value={count(shards)} />
        <Figure name="Moves under way" value={count(movesInProgress.length)} />
        <Figure name="Gateways" value={count(gateways.length)} />
      </dl>
      <div className="columns">
        <Tenants status={status} />
        <Places status={status} />
        <Load />
      </div>
      {!isTenantAdmin && <OverviewPlots />}
      <Moves status={status} />
    </>
  );
}

function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div className="figure">
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

/** Worst first: what is wrong shall not hide behind what is well. */
const ORDER = ["bad", "warn", "busy", "good", "rest"];

function Tenants({ status: { tenants } }: { status: ClusterStatus }) {
  const phases = Object.entries(tenants.byPhase).toSorted(
    ([a], [b]) => ORDER.indexOf(toneOf("Tenant", a)) - ORDER.indexOf(toneOf("Tenant", b)),
  );
  return (
    <Card title="Tenants by phase">
      {tenants.total === 0 ? (
        <Empty title="There are no tenants yet">
          <code>synapse-shards tenant create clinic-a --wait</code> makes the first
        </Empty>
      ) : (
        <>
          <div className="meter" aria-hidden="true">
            {phases.map(([phase, number]) => (
              <i key={phase} data-tone={toneOf("Tenant", phase)} style={{ flexGrow: number }} />
            ))}
          </div>
          <ul className="phases">
            {phases.map(([phase, number]) => (
              <li key={phase}>
                <Phase kind="Tenant" phase={phase} />
                <span className="number" aria-label={`${number} ${phaseName(phase)}`}>
                  {count(number)}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
    </Card>
  );
}

function Places({ status: { imageTags } }: { status: ClusterStatus }) {
  return (
    <Card title="Places by release">
      {imageTags.length === 0 && <Empty title="No release is in use" />}
      <div className="bars">
        {imageTags.map(({ version, shards, tenants, capacity, saturated }) => (
          <div className="bar" key={version}>
            <div className="ends">
              <span>
                <strong>{version}</strong> <span className="muted">on {counted(shards, "shard")}</span>{" "}
                {saturated && <Badge tone="warn">Full</Badge>}
              </span>
              <span className="number">
                {count(tenants)} <span className="muted">of {count(capacity)} places</span>
              </span>
            </div>
            <div className="meter" aria-hidden="true">
              <i
                data-tone={saturated ? "warn" : undefined}
                style={{ width: widthOf(tenants / Math.max(1, capacity)) }}
              />
            </div>
          </div>
        ))}
      </div>
    </Card>
  );
}

/** As many as are looked at one by one. */
const BUSIEST = 8;

function Load() {
  return useIsTenantAdmin() ? null : <BusiestShards />;
}

function BusiestShards() {
  const shards = useQuery(shardsQuery);
  const { data } = shards;
  if (!data) return <Waiting query={shards} what="the shards" />;
  const busiest = data.items.toSorted((a, b) => (b.status.load ?? 0) - (a.status.load ?? 0)).slice(0, BUSIEST);
  return (
    <Card title="Busiest shards">
      {busiest.length === 0 && <Empty title="No shard runs">The first tenant brings one along.</Empty>}
      <div className="bars">
        {busiest.map(({ metadata, status, tenants }) => (
          <div className="bar" key={metadata.name}>
            <div className="ends">
              <span>
                <strong>{metadata.name}</strong>{" "}
                {status.phase === "Ready" ? (
                  <span className="muted">{counted(tenants.length, "tenant")}</span>
                ) : (
                  <Phase kind="Shard" phase={status.phase} />
                )}
              </span>
              <span className="number">{status.load === undefined ? "–" : `${percent(status.load)} of a core`}</span>
            </div>
            <div className="meter" aria-hidden="true">
              <i
                data-tone={(status.load ?? 0) > 0.7 ? "warn" : undefined}
                style={{ width: widthOf(status.load ?? 0) }}
              />
            </div>
          </div>
        ))}
      </div>
    </Card>
  );
}

const OUTCOME_TONES = { Succeeded: "good", Refused: "warn", RolledBack: "bad", Interrupted: "warn" } as const;

function Moves({ status: { movesInProgress, recentMoves } }: { status: ClusterStatus }) {
  return (
    <Card title="Moves" flush>
      {movesInProgress.length + recentMoves.length === 0 ? (
        <Empty title="No tenant has been moved yet" />
      ) : (
        <ScrollTable
          label="Moves"
          columns={[
            "Tenant",
            "From, to",
            "State",
            { name: "Blackout", className: "number" },
            { name: "Failed", className: "number" },
            "Ended",
          ]}
        >
          {movesInProgress.map(({ tenant, move }) => (
            <tr key={move.id}>
              <td>{tenant}</td>
              <td className="mono">
                {move.from} → {move.to}
              </td>
              <td>
                <Badge tone="busy">{move.step}</Badge>
              </td>
              <td className="number">–</td>
              <td className="number">–</td>
              <td className="time">under way</td>
            </tr>
          ))}
          {recentMoves.map(({ tenant, result }) => (
            <tr key={result.id}>
              <td>{tenant}</td>
              <td className="mono">
                {result.from} → {result.to}
              </td>
              <td title={result.message}>
                <Badge tone={OUTCOME_TONES[result.outcome]}>{result.outcome}</Badge>
              </td>
              <td className="number">{seconds(result.blackoutSeconds)}</td>
              <td className="number">{count(result.failedRequests)}</td>
              <td className="time">
                <Ago at={result.finishedAt} />
              </td>
            </tr>
          ))}
        </ScrollTable>
      )}
    </Card>
  );
}
