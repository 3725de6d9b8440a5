import type { Agent } from "undici";
import { listenerHeaders } from "./listener.ts";

/** A user with a room, whose homeserver is asked. */
interface Asker {
  url: string;
  token: string;
  room: string;
  agent: Agent;
}

interface Feature {
  name: string;
  method: "GET" | "POST";
  /** `ROOM` stands for the room's id. */
  path: string;
  body?: object;
  /** Whether an answer says that it is there; default: that there is something at the path. */
  has?: (answer: { status: number; json: Record<string, unknown> }) => boolean;
}

/** What today's clients and their administrators ask a homeserver for, beyond what every one has. */
export const FEATURES: Feature[] = [
  {
    name: "sliding sync (Element X)",
    method: "POST",
    path: "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0",
    body: { lists: {} },
  },
  { name: "authenticated media", method: "GET", path: "/_matrix/client/v1/media/config" },
  { name: "threads of a room", method: "GET", path: "/_matrix/client/v1/rooms/ROOM/threads" },
  { name: "spaces", method: "GET", path: "/_matrix/client/v1/rooms/ROOM/hierarchy" },
  { name: "jump to a date", method: "GET", path: "/_matrix/client/v1/rooms/ROOM/timestamp_to_event?ts=1&dir=f" },
  {
    name: "search in messages",
    method: "POST",
    path: "/_matrix/client/v3/search",
    body: { search_categories: { room_events: { search_term: "message" } } },
  },
  {
    name: "room version 12",
    method: "GET",
    path: "/_matrix/client/v3/capabilities",
    has: ({ json }) => JSON.stringify(json).includes('"12":'),
  },
  { name: "key backup", method: "GET", path: "/_matrix/client/v3/room_keys/version" },
  { name: "reporting rooms", method: "POST", path: "/_matrix/client/v3/rooms/ROOM/report", body: { reason: "test" } },
  { name: "Synapse's admin API", method: "GET", path: "/_synapse/admin/v2/users" },
];

/** @returns the names of features that a homeserver lacks */
export async function lacking(asker: Asker): Promise<string[]> {
  const missing: string[] = [];
  for (const feature of FEATURES) {
    const answer = await ask(asker, feature);
    if (!(feature.has ?? isThere)(answer)) missing.push(feature.name);
  }
  return missing;
}

/** What is not there is answered with `M_UNRECOGNIZED`, or by a router that knows no such path. */
function isThere({ status, json }: { status: number; json: Record<string, unknown> }): boolean {
  return (
    status !== 405 && status !== 501 && json["errcode"] !== "M_UNRECOGNIZED" && !(status === 404 && !json["errcode"])
  );
}

async function ask({ url, token, room, agent }: Asker, { method, path, body }: Feature) {
  const { statusCode, body: content } = await agent.request({
    origin: url,
    path: path.replace("ROOM", encodeURIComponent(room)),
    method,
    headers: {
      ...listenerHeaders(url),
      authorization: `Bearer ${token}`,
      ...(body ? { "content-type": "application/json" } : {}),
    },
    body: body ? JSON.stringify(body) : null,
  });
  const text = await content.text();
  try {
    return { status: statusCode, json: JSON.parse(text) as Record<string, unknown> };
  } catch {
    return { status: statusCode, json: {} };
  }
}
