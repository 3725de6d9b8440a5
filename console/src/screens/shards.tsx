import { useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { Link, useParams, useSearch } from "@tanstack/react-router";
import { api, dataOf, sentence, type Shard as ShardData } from "../api/client.ts";
import { eventsQuery, shardsQuery } from "../api/queries.ts";
import { useMay } from "../api/session.ts";
import { ActionDialog } from "../ui/action.tsx";
import { Badge, Phase } from "../ui/badge.tsx";
import { Command } from "../ui/command.tsx";
import { bytes, counted, percent, widthOf } from "../ui/format.ts";
import { HistoryCard, type Plotted } from "../ui/history.tsx";
import { LogView } from "../ui/log-view.tsx";
import { Card, Page } from "../ui/page.tsx";
import { Empty, Waiting } from "../ui/states.tsx";
import { EventCard } from "./events.tsx";

/** Above this share of a core, a shard's tenants wait for each other. */
const HOT = 0.7;

export function Shards() {
  const shards = useQuery(shardsQuery);
  const { data } = shards;
  const releases = Map.groupBy(data?.items ?? [], ({ spec }) => spec.release);
  return (
    <Page
      title="Shards"
      lead="Each box is a process that hosts tenants of one release; each square in it is a tenant, each outline a free place."
    >
      {!data && <Waiting query={shards} what="the shards" />}
      {data?.items.length === 0 && (
        <section className="card">
          <Empty title="No shard runs">The first tenant brings one along.</Empty>
        </section>
      )}
      {[...releases].map(([release, items]) => (
        <section key={release} className="stack" aria-label={`Synapse ${release}`}>
          <h2>
            Synapse {release} <span className="muted">{counted(items.length, "shard")}</span>
          </h2>
          <div className="boxes">
            {items.map((shard) => (
              <Box key={shard.metadata.name} shard={shard} />
            ))}
          </div>
        </section>
      ))}
      <Command text="synapse-shards shard list" />
    </Page>
  );
}

function Box({ shard }: { shard: ShardData }) {
  const { metadata, status, tenants, capacity } = shard;
  const { load, phase, message, keeps } = status;
  return (
    <section className="card box" aria-label={`Shard ${metadata.name}`}>
      <header>
        <h3>
          <Link to="/shards/$name" params={{ name: metadata.name }}>
            {metadata.name}
          </Link>
        </h3>
        <Phase kind="Shard" phase={phase} />
      </header>
      <div className="body">
        <ul className="places" aria-label={`${tenants.length} of ${capacity} places`}>
          {tenants.map((name) => (
            <li key={name}>
              <Link to="/tenants/$name" params={{ name }} title={name} aria-label={name} />
            </li>
          ))}
          {Array.from({ length: Math.max(0, capacity - tenants.length) }, (_, index) => (
            <li key={index} aria-hidden="true" />
          ))}
        </ul>
        <div className="bar">
          <div className="ends">
            <span className="muted">
              {tenants.length} of {capacity} places
            </span>
            <span className="number">{load === undefined ? "load not known yet" : `${percent(load)} of a core`}</span>
          </div>
          <div className="meter" aria-hidden="true">
            <i data-tone={(load ?? 0) > HOT ? "warn" : undefined} style={{ width: widthOf(load ?? 0) }} />
          </div>
        </div>
        {message !== "" && <p className="small">{sentence(message)}</p>}
        {keeps && <p className="small muted">{sentence(keeps.message)}</p>}
      </div>
    </section>
  );
}

const PLOTS: readonly Plotted[] = [
  {
    title: "Load",
    unit: "cores",
    format: (value) => value.toFixed(2),
    lines: [{ series: "load", name: "load", tone: "accent" }],
  },
  { title: "Memory", format: bytes, lines: [{ series: "memory", name: "resident", tone: "accent" }] },
];

export function Shard() {
  const { name } = useParams({ from: "/shards/$name" });
  const { tab = "events" } = useSearch({ from: "/shards/$name" });
  const shards = useQuery(shardsQuery);
  const events = useQuery(eventsQuery(`Shard/${name}`));
  const shard = shards.data?.items.find(({ metadata }) => metadata.name === name);
  return (
    <Page title={`Shard ${name}`} lead={shard && <Lead shard={shard} />} actions={shard && <Drain shard={shard} />}>
      {!shards.data && <Waiting query={shards} what="the shard" />}
      {shards.data && !shard && (
        <Empty title={`There is no shard ${name}`}>
          It was drained, or never was. <Link to="/shards">Go to the shards</Link>
        </Empty>
      )}
      {shard && (
        <>
          <Card title="Tenants">
            {shard.tenants.length === 0 ? (
              <Empty title="It has no tenants" />
            ) : (
              <ul className="row">
                {shard.tenants.map((tenant) => (
                  <li key={tenant}>
                    <Link to="/tenants/$name" params={{ name: tenant }}>
                      {tenant}
                    </Link>
                  </li>
                ))}
              </ul>
            )}
          </Card>
          <HistoryCard plots={PLOTS} shard={name} />
          <div>
            <nav className="tabs" aria-label="Parts of the shard">
              {(["events", "log"] as const).map((part) => (
                <Link
                  key={part}
                  to="/shards/$name"
                  params={{ name }}
                  search={part === "events" ? {} : { tab: part }}
                  activeOptions={{ exact: true }}
                >
                  {part === "events" ? "Events" : "Log"}
                </Link>
              ))}
            </nav>
            {tab === "log" ? (
              <LogView path={`/v1/shards/${name}/logs`} command={`synapse-shards shard logs ${name} --follow`} />
            ) : (
              <EventCard label="Events" events={events.data ?? []} />
            )}
          </div>
        </>
      )}
    </Page>
  );
}

function Lead({ shard: { status, spec, tenants, capacity } }: { shard: ShardData }) {
  return (
    <span className="row">
      <Phase kind="Shard" phase={status.phase} />
      <span>
        Synapse {spec.release}, {tenants.length} of {capacity} places,{" "}
        {status.load === undefined ? "load not known yet" : `${percent(status.load)} of a core`}
      </span>
      {spec.drain && <Badge tone="busy">{`Drained: ${spec.drain}`}</Badge>}
    </span>
  );
}

function Drain({ shard }: { shard: ShardData }) {
  const [open, setOpen] = useState(false);
  const mayOperate = useMay("operator");
  const { name } = shard.metadata;
  if (!mayOperate || shard.spec.drain === "Requested") return null;
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>
        Drain …
      </button>
      {open && (
        <ActionDialog
          close={() => setOpen(false)}
          action={{
            title: `Drain ${name}`,
            verb: "Drain",
            isDangerous: true,
            command: `synapse-shards shard drain ${name}`,
            done: `${name} is being drained`,
            act: () => dataOf(api.POST("/v1/shards/{name}/drain", { params: { path: { name } } })),
            children: (
              <p>
                Its {counted(shard.tenants.length, "tenant")} move to other shards, one after the other, each with a
                blackout of about a second; then it is stopped. If they do not fit elsewhere, nothing is done.
              </p>
            ),
          }}
        />
      )}
    </>
  );
}
