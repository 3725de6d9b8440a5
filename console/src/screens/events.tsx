import { useDeferredValue, useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { eventsQuery } from "../api/queries.ts";
import { Badge } from "../ui/badge.tsx";
import { Command } from "../ui/command.tsx";
import { counted } from "../ui/format.ts";
import { ObjectLink } from "../ui/object-link.tsx";
import { Page } from "../ui/page.tsx";
import { Empty, Waiting } from "../ui/states.tsx";
import { Time } from "../ui/time.tsx";
import type { ClusterEvent } from "../api/client.ts";

/** More are kept; further back, one searches for an object. */
const SHOWN = 300;

export function Events() {
  const events = useQuery(eventsQuery());
  const [search, setSearch] = useState("");
  const [onlyWarnings, setOnlyWarnings] = useState(false);
  const words = useDeferredValue(search.trim().toLowerCase());
  const found = (events.data ?? []).filter(
    (event) => (!onlyWarnings || event.type === "Warning") && textOf(event).includes(words),
  );
  return (
    <Page title="Events" lead="What the controller does, and why; newest first.">
      <div className="row">
        <input
          type="search"
          placeholder="Search in events"
          aria-label="Search in events"
          value={search}
          onChange={({ target }) => setSearch(target.value)}
        />
        <label className="inline">
          <input type="checkbox" checked={onlyWarnings} onChange={({ target }) => setOnlyWarnings(target.checked)} />
          Warnings only
        </label>
        {events.data && <span className="muted">{counted(found.length, "event")}</span>}
      </div>
      {events.data ? (
        <EventCard label="Events" none="No event is like that" events={found.slice(0, SHOWN)} />
      ) : (
        <Waiting query={events} what="the events" />
      )}
      <Command text="synapse-shards events --follow" />
    </Page>
  );
}

/** @param none what is said where there are none */
export function EventCard({ label, events, none }: { label: string; events: ClusterEvent[]; none?: string }) {
  return (
    <section className="card scroll" aria-label={label} tabIndex={0}>
      {events.length === 0 ? (
        <Empty title={none ?? "Nothing has happened, as far as events are kept"} />
      ) : (
        <EventTable events={events} />
      )}
    </section>
  );
}

function EventTable({ events }: { events: ClusterEvent[] }) {
  return (
    <table>
      <thead>
        <tr>
          <th>Time</th>
          <th>Type</th>
          <th>Object</th>
          <th>What happened</th>
        </tr>
      </thead>
      <tbody>
        {events.map((event) => (
          <tr key={event.id}>
            <td className="time">
              <Time at={event.time} />
            </td>
            <td>
              <Badge tone={event.type === "Warning" ? "warn" : "rest"}>{event.reason}</Badge>
            </td>
            <td>
              <ObjectLink object={event.object} />
            </td>
            <td>{event.message}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function textOf({ reason, object, message }: ClusterEvent): string {
  return `${reason} ${object} ${message}`.toLowerCase();
}
