/** Clients that take as much of a tenant as they get, in one way or another. */
import { deflateSync } from "node:zlib";
import { setTimeout as sleep } from "node:timers/promises";
import type { Agent } from "undici";
import { type Answer, ok, type Target } from "../load-client.ts";
import { type MatrixUser, PASSWORD } from "./matrix.ts";

/** How many ask, each as fast as it is answered. */
export const HAMMERS = 12;

export interface Hammer {
  token: string;
  userId: string;
  rooms: string[];
}
export type Ask = (
  method: "GET" | "POST" | "PUT",
  path: string,
  body?: object | Buffer,
  token?: string,
) => Promise<Answer>;
/** One request after another, for as long as it is wanted. @param number rises with each */
export type Kind = (ask: Ask, who: Hammer, number: number) => Promise<Answer>;

const client = (path: string) => `/_matrix/client/v3${path}`;

/** Ways to take much of a homeserver. */
export const KINDS: Record<string, Kind> = {
  logins: (ask, { userId }) =>
    ask("POST", client("/login"), {
      type: "m.login.password",
      identifier: { type: "m.id.user", user: userId },
      password: PASSWORD,
    }),
  "initial syncs": (ask, { token }, number) =>
    // Another filter each, as equal syncs share an answer.
    ask(
      "GET",
      client(`/sync?filter=${filter({ room: { timeline: { limit: 50 + (number % 1000) } } })}`),
      undefined,
      token,
    ),
  searches: (ask, { token }, number) =>
    ask(
      "POST",
      client("/search"),
      { search_categories: { room_events: { search_term: `message ${number % 7}` } } },
      token,
    ),
  joins: (ask, { token, rooms }, number) =>
    ask(
      "POST",
      client(`/rooms/${encodeURIComponent(rooms[number % rooms.length]!)}/${number % 2 ? "leave" : "join"}`),
      {},
      token,
    ),
  uploads: (ask, { token }) => ask("POST", "/_matrix/media/v3/upload?filename=a.png", picture(), token),
  "to-device floods": (ask, { token, userId }, number) =>
    ask("PUT", client(`/sendToDevice/m.flood/${userId}-${number}-${Date.now()}`), toEverybody(userId), token),
  "large filters": (ask, { token, userId }, number) =>
    ask("POST", client(`/user/${encodeURIComponent(userId)}/filter`), largeFilter(number), token),
};

const filter = (content: object) => encodeURIComponent(JSON.stringify(content));

function toEverybody(userId: string): object {
  const server = userId.split(":")[1];
  const users = Array.from({ length: HAMMERS }, (_, index) => `@user${index}:${server}`);
  return { messages: Object.fromEntries(users.map((user) => [user, { "*": { body: "x".repeat(500) } }])) };
}

function largeFilter(number: number): object {
  return { room: { timeline: { types: Array.from({ length: 1500 }, (_, index) => `m.type.${number}.${index}`) } } };
}

let made: Buffer | undefined;
/** A PNG of 1500² pixels, of which thumbnails are made. */
function picture(): Buffer {
  if (made) return made;
  const [width, height] = [1500, 1500];
  const line = Buffer.alloc(1 + width * 3);
  const rows = Buffer.concat(Array.from({ length: height }, (_, y) => (line.fill(y % 251, 1), Buffer.from(line))));
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const chunks = [chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))];
  return (made = Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), ...chunks]));
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body) >>> 0);
  return Buffer.concat([length, body, check]);
}

function crc32(data: Buffer): number {
  let crc = -1;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return crc ^ -1;
}

const MANY = { per_second: 10_000, burst_count: 10_000 };
/** As if they came from many addresses: Synapse's own limits are not what is measured. */
export const LIFTED = {
  rc_login: { address: MANY, account: MANY, failed_attempts: MANY },
  rc_joins: { local: MANY, remote: MANY },
};

/** Rooms with all users and some messages. */
export async function furnish(users: MatrixUser[], count: number): Promise<Hammer[]> {
  const [host, ...guests] = users;
  const rooms: string[] = [];
  for (let index = 0; index < count; index++) {
    const room = await host!.createRoom(guests.map((guest) => guest.userId));
    rooms.push(room);
    for (const guest of guests.slice(0, 3)) await guest.join(room);
    for (let number = 0; number < 5; number++) await host!.send(room, `message ${number} of room ${index}`);
  }
  await Promise.all(users.map((user) => user.close()));
  return users.map(({ accessToken, userId }) => ({ token: accessToken, userId, rooms }));
}

export function asker(agent: Agent, { url, host }: Target): Ask {
  return async (method, path, body, token) => {
    const sent = performance.now();
    const answer = (status: number): Answer => ({ sent, answered: performance.now(), status, what: path });
    try {
      const response = await agent.request({
        origin: url,
        path,
        method,
        headers: {
          ...(host === undefined ? {} : { host }),
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { "content-type": Buffer.isBuffer(body) ? "image/png" : "application/json" }),
        },
        body: body === undefined ? null : Buffer.isBuffer(body) ? body : JSON.stringify(body),
        signal: AbortSignal.timeout(120_000),
      });
      await response.body.dump();
      return answer(response.statusCode);
    } catch {
      return answer(0);
    }
  };
}

export async function hammerOn(
  { kind, ask }: { kind: Kind; ask: Ask },
  who: Hammer,
  first: number,
  signal: AbortSignal,
): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let number = first; !signal.aborted; number++) {
    const answer = await kind(ask, who, number);
    answers.push(answer);
    // Clients wait when they are told to; hostile ones not for long.
    if (!ok(answer)) await sleep(200);
  }
  return answers;
}
