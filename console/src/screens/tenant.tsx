import { useQuery } from "@tanstack/react-query";
import { Link, useParams, useSearch } from "@tanstack/react-router";
import { ApiFailure, sentence, type Tenant as TenantData } from "../api/client.ts";
import { eventsQuery, restQuery, tenantQuery, usageQuery } from "../api/queries.ts";
import { Badge, Phase } from "../ui/badge.tsx";
import { bytes, count, counted, duration, percent, seconds } from "../ui/format.ts";
import { LogView } from "../ui/log-view.tsx";
import { Card, Page } from "../ui/page.tsx";
import { Empty, Waiting } from "../ui/states.tsx";
import { Ago, Time } from "../ui/time.tsx";
import { EventCard } from "./events.tsx";
import { TenantActions } from "./tenant/actions.tsx";
import { AdminAccess } from "./tenant/admin-access.tsx";
import { Backups } from "./tenant/backups.tsx";
import { Configuration } from "./tenant/configuration.tsx";
import { Users } from "./tenant/users.tsx";
import { World } from "./tenant/world.tsx";
import { UsagePlots } from "./tenant/usage-plots.tsx";
import { stateOf } from "./tenant/state.ts";

const TABS = {
  state: "State",
  timeline: "Timeline",
  configuration: "Configuration",
  users: "Users",
  backups: "Backups",
  check: "Check",
  log: "Log",
};
export type TenantTab = keyof typeof TABS;

export function Tenant() {
  const { name } = useParams({ from: "/tenants/$name" });
  const { tab = "state" } = useSearch({ from: "/tenants/$name" });
  const tenant = useQuery(tenantQuery(name));
  const { data } = tenant;
  const isGone = tenant.error instanceof ApiFailure && tenant.error.status === 404;
  return (
    <Page
      title={name}
      lead={
        data && (
          <span className="row">
            <Phase kind="Tenant" phase={data.status.phase} />
            <span>{data.spec.serverName}</span>
            {Object.entries(data.spec.labels ?? {}).map(([key, value]) => (
              <span key={key} className="tag">
                {value === "" ? key : `${key}=${value}`}
              </span>
            ))}
          </span>
        )
      }
      actions={data && !isGone && <TenantActions tenant={data} />}
    >
      {isGone && (
        <Empty title={`There is no tenant ${name}`}>
          It was deleted, or never was. <Link to="/tenants">Go to the tenants</Link>
        </Empty>
      )}
      {!data && !isGone && <Waiting query={tenant} what="the tenant" />}
      {data && !isGone && (
        <div>
          <nav className="tabs" aria-label="Parts of the tenant">
            {Object.entries(TABS).map(([key, title]) => (
              <Link
                key={key}
                to="/tenants/$name"
                params={{ name }}
                search={key === "state" ? {} : { tab: key as TenantTab }}
                activeOptions={{ exact: true }}
              >
                {title}
              </Link>
            ))}
          </nav>
          <Part tenant={data} tab={tab} />
        </div>
      )}
    </Page>
  );
}

function Part({ tenant, tab }: { tenant: TenantData; tab: TenantTab }) {
  const { name } = tenant.metadata;
  switch (tab) {
    case "state":
      return <State tenant={tenant} />;
    case "timeline":
      return <Timeline name={name} />;
    case "configuration":
      return <Configuration tenant={tenant} />;
    case "users":
      return <Users tenant={tenant} />;
    case "backups":
      return <Backups tenant={tenant} />;
    case "check":
      return <World tenant={tenant} />;
    case "log":
      return <LogView path={`/v1/tenants/${name}/logs`} command={`synapse-shards tenant logs ${name} --follow`} />;
  }
}

function State({ tenant }: { tenant: TenantData }) {
  const { metadata, spec, status, url, change } = tenant;
  const rest = useQuery(restQuery(metadata.name));
  const { lastMove } = status;
  return (
    <div className="stack">
      <div className="notice" data-tone={toneOfState(tenant)}>
        {stateOf(tenant).map((text) => (
          <p key={text}>{sentence(text)}</p>
        ))}
      </div>
      <div className="columns">
        <Card title="Where and what">
          <dl className="facts">
            <dt>For clients</dt>
            <dd>
              <a href={url} rel="noreferrer">
                {url}
              </a>
            </dd>
            <dt>Shard</dt>
            <dd>{status.shard ? <Link to="/shards">{status.shard}</Link> : (status.dedicated?.address ?? "none")}</dd>
            <dt>Release</dt>
            <dd>{spec.release || `${status.fleetRelease ?? "none yet"}, the fleet’s`}</dd>
            <dt>Change</dt>
            <dd>{change.state === "InEffect" ? "in effect" : `${change.state}: ${change.message}`}</dd>
            <dt>Created</dt>
            <dd>
              <Time at={metadata.creationTimestamp} />
            </dd>
            {status.pin && (
              <>
                <dt>Pinned</dt>
                <dd>
                  to {status.pin.shard} until <Time at={status.pin.until} />
                </dd>
              </>
            )}
          </dl>
        </Card>
        <Figures name={metadata.name} />
        <Card title="Sleep">
          <dl className="facts">
            <dt>Setting</dt>
            <dd>{spec.hibernation?.mode === "Never" ? "never sleeps" : "sleeps when nobody uses it"}</dd>
            {rest.data?.unusedSeconds !== undefined && (
              <>
                <dt>Last used</dt>
                <dd>{duration(rest.data.unusedSeconds)} ago</dd>
              </>
            )}
            <dt>Kept awake by</dt>
            <dd>{rest.data?.keepsAwake.join("; ") || "nothing"}</dd>
            {rest.data?.nextWake && (
              <>
                <dt>Next wake</dt>
                <dd>
                  <Time at={rest.data.nextWake.at} />: {rest.data.nextWake.reason}
                </dd>
              </>
            )}
          </dl>
        </Card>
        <AdminAccess name={metadata.name} />
        {lastMove && (
          <Card title="Last move">
            <dl className="facts">
              <dt>From, to</dt>
              <dd className="mono">
                {lastMove.from} → {lastMove.to}
              </dd>
              <dt>Outcome</dt>
              <dd>
                <Badge tone={lastMove.outcome === "Succeeded" ? "good" : "warn"}>{lastMove.outcome}</Badge>{" "}
                {lastMove.message}
              </dd>
              <dt>Blackout</dt>
              <dd>{seconds(lastMove.blackoutSeconds)}</dd>
              <dt>Requests</dt>
              <dd>
                {count(lastMove.parkedRequests)} waited, {count(lastMove.failedRequests)} failed
              </dd>
              <dt>Ended</dt>
              <dd>
                <Ago at={lastMove.finishedAt} />
              </dd>
            </dl>
          </Card>
        )}
      </div>
      <UsagePlots name={metadata.name} />
    </div>
  );
}

function toneOfState({ status, change }: TenantData): "good" | "warn" | "bad" {
  if (status.phase === "Failed") return "bad";
  return status.message !== "" || status.quarantine || status.throttle || change.state === "Refused" ? "warn" : "good";
}

function Figures({ name }: { name: string }) {
  const usage = useQuery(usageQuery(name));
  const { data } = usage;
  if (!data) return <Waiting query={usage} what="what it takes" />;
  const { cpuShare, databaseShare, database, holdings } = data;
  return (
    <Card title="What it takes">
      <dl className="facts">
        <dt>Processor</dt>
        <dd>{cpuShare === undefined ? "not known yet" : `${percent(cpuShare)} of a core`}</dd>
        <dt>Budget</dt>
        <dd>{data.cpuBudget === 0 ? "any" : `${percent(data.cpuBudget)} of a core`}</dd>
        <dt>Database time</dt>
        <dd>{databaseShare === undefined ? "not known yet" : `${percent(databaseShare)} of a connection`}</dd>
        <dt>Database</dt>
        <dd>
          {database ? `${bytes(database.bytes)}, ${counted(database.connections, "connection")}` : "not known yet"}
        </dd>
        {holdings && (
          <>
            <dt>Answers</dt>
            <dd>{bytes(holdings.responseBytes)} since its start there</dd>
            <dt>Caches</dt>
            <dd>{counted(holdings.cacheEntries, "entry").replace("entrys", "entries")}</dd>
          </>
        )}
      </dl>
    </Card>
  );
}

function Timeline({ name }: { name: string }) {
  const events = useQuery(eventsQuery(`Tenant/${name}`));
  if (!events.data) return <Waiting query={events} what="the timeline" />;
  return <EventCard label="Timeline" events={events.data} />;
}
