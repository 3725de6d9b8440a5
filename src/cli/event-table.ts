import type { ClusterEvent } from "../model/event.ts";
import type { Client } from "./client.ts";
import { age, paint, plain, table } from "./output.ts";

/** As many events as `describe` shows. */
const EVENTS_SHOWN = 20;

export async function recentEvents(client: Client, object: string): Promise<ClusterEvent[]> {
  const events: ClusterEvent[] = [];
  for await (const line of client.lines("/v1/events", { query: { object } }))
    if (line !== "") events.push(JSON.parse(line) as ClusterEvent);
  return events.slice(-EVENTS_SHOWN);
}

export function eventTable(events: ClusterEvent[]): string {
  return table(
    ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
    events.map((event) => [age(event.time), event.type, event.reason, event.object, event.message]),
  );
}

/** One event while following: what comes later cannot widen the columns any more, and an age would grow old. */
export function eventLine(event: ClusterEvent): string {
  const cells = [
    event.time,
    paint(event.type) + " ".repeat(Math.max(0, 7 - event.type.length)),
    event.reason.padEnd(18),
    event.object.padEnd(24),
    event.message,
  ];
  return cells.map((cell, index) => (index === 1 ? cell : plain(cell))).join("  ");
}
