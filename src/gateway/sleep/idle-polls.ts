import { hash, randomBytes } from "node:crypto";

/** What a client asks again and again while nothing happens: classic `/sync`, or simplified sliding sync (MSC4186). */
export interface Poll {
  kind: "classic" | "sliding";
  path: string;
  /** `since`, or `pos`. */
  position: string;
  /** How long it waits for something to happen, in milliseconds; 0: not at all. */
  timeoutMs: number;
  /** All other parameters, as they came. */
  rest: string;
}

const CLASSIC = /^\/_matrix\/client\/(?:v3|r0|unstable)\/sync$/;
const SLIDING = /^\/_matrix\/client\/unstable\/org\.matrix\.simplified_msc3575\/sync$/;
/** Longer ones are of no client; and numbers stay exact. */
const TIMEOUT = /^\d{1,9}$/;

/**
 * @returns the poll that a request is, as far as its head tells. Undefined as well for those that are never idle: an initial `/sync`, one for the
 * full state, one that says something twice or in a way of its own.
 */
export function pollOf(method: string, target: string): Poll | undefined {
  const mark = target.indexOf("?");
  // Nearly all requests are done here.
  if (mark === -1 || !target.startsWith("sync", mark - 4)) return undefined;
  const path = target.slice(0, mark);
  const isClassic = method === "GET" && CLASSIC.test(path);
  if (!isClassic && !(method === "POST" && SLIDING.test(path))) return undefined;
  const positionName = isClassic ? "since" : "pos";
  let position: string | undefined;
  let timeout: string | undefined;
  const rest: string[] = [];
  for (const part of target.slice(mark + 1).split("&")) {
    const [name, value] = nameAndValue(part);
    if (name === undefined || value === undefined) return undefined;
    if (name === positionName) {
      if (position !== undefined) return undefined;
      position = value;
    } else if (name === "timeout") {
      if (timeout !== undefined) return undefined;
      timeout = value;
    } else if (name === "full_state" && value !== "false") return undefined;
    else rest.push(part);
  }
  if (position === undefined || position === "" || !TIMEOUT.test(timeout ?? "0")) return undefined;
  return {
    kind: isClassic ? "classic" : "sliding",
    path,
    position,
    timeoutMs: Number(timeout ?? 0),
    rest: rest.join("&"),
  };
}

function nameAndValue(part: string): [name?: string, value?: string] {
  const equals = part.indexOf("=");
  if (equals === -1) return [];
  try {
    return [decode(part.slice(0, equals)), decode(part.slice(equals + 1))];
  } catch {
    return [];
  }
}

function decode(text: string): string {
  return text.includes("%") || text.includes("+") ? decodeURIComponent(text.replaceAll("+", " ")) : text;
}

/** The same request with as much time as is left of what its client gave it. */
export function withTimeout(target: string, timeoutMs: number): string {
  return target.replace(/([?&]timeout=)\d+/, `$1${Math.max(0, Math.floor(timeoutMs))}`);
}

/** Where a poll stands: its position, and in sliding sync how far messages to the device were read, which is counted separately. */
interface Standing {
  position: string;
  toDevice: string | undefined;
}

/** What makes two polls the same but for where they stand. */
export interface PollIdentity {
  /** Not the token itself, nor anything that it could be guessed from. */
  key: string;
  standing: string;
}

/** Of this process: what is in memory is of no use elsewhere. Nobody who does not know it can tell a key's token, by trying either. */
const SALT = randomBytes(32).toString("base64url");
/** 18 bytes. */
const KEY_CHARACTERS = 24;

/**
 * @param authorization the header as it came; a token in the query is part of the parameters
 * @param body of a sliding sync
 * @returns undefined if the body is not what a client of sliding sync sends
 */
export function identityOf(poll: Poll, authorization: string, body: Buffer | undefined): PollIdentity | undefined {
  let question = "";
  let toDevice: string | undefined;
  if (poll.kind === "sliding") {
    const read = slidingQuestion(body);
    if (!read) return undefined;
    ({ question, toDevice } = read);
  }
  // At once, as an HMAC object takes 25 times as long, which is a fifth of what a poll costs the gateway.
  const parts = [poll.path, authorization, poll.rest, question].map((part) => `${part.length}:${part}`);
  const key = hash("sha256", `${SALT}${parts.join("")}`, "base64url").slice(0, KEY_CHARACTERS);
  return { key, standing: standingText({ position: poll.position, toDevice }) };
}

function standingText({ position, toDevice }: Standing): string {
  return toDevice === undefined ? position : `${position} ${toDevice}`;
}

type Json = Record<string, unknown>;

function slidingQuestion(body: Buffer | undefined): { question: string; toDevice: string | undefined } | undefined {
  const question = jsonObject(body?.toString("utf8") ?? "");
  if (!question) return undefined;
  const extensions = question.extensions as Json | undefined;
  const toDevice = isObject(extensions) ? extensions.to_device : undefined;
  if (!isObject(toDevice) || toDevice.since === undefined || toDevice.since === null)
    return { question: JSON.stringify(question), toDevice: undefined };
  const { since, ...others } = toDevice;
  if (typeof since !== "string") return undefined;
  const same = { ...question, extensions: { ...(extensions as Json), to_device: others } };
  return { question: JSON.stringify(same), toDevice: since };
}

/** What an answer that says "nothing new" leads to. */
export interface NothingNew {
  /** Where the next poll stands, if the client has understood the answer. */
  standing: string;
  /** In the streams of its homeserver (`position.ts`). */
  position: string;
}

/** In an answer to a classic `/sync` besides `next_batch`: counts that are always there. Everything else is news. */
const CLASSIC_COUNTS = new Set([
  "device_one_time_keys_count",
  "device_unused_fallback_key_types",
  "org.matrix.msc2732.device_unused_fallback_key_types",
]);

/** @returns undefined if the answer has anything new in it, or anything that is not known here */
export function nothingNew(kind: Poll["kind"], text: string): NothingNew | undefined {
  const answer = jsonObject(text);
  if (!answer) return undefined;
  return kind === "classic" ? nothingNewClassic(answer) : nothingNewSliding(answer);
}

function nothingNewClassic({ next_batch: next, ...others }: Json): NothingNew | undefined {
  if (typeof next !== "string" || next === "") return undefined;
  for (const [name, value] of Object.entries(others))
    if (!CLASSIC_COUNTS.has(name) && !isEmpty(value)) return undefined;
  return { standing: next, position: next };
}

/**
 * `lists` has how many rooms there are, and which are in the window: the same as before where no room is new, as the order is that of events.
 * `extensions` has counts of keys, and where messages to the device were read to.
 */
function nothingNewSliding(answer: Json): NothingNew | undefined {
  const { pos, lists: _lists, extensions = {}, ...others } = answer;
  if (typeof pos !== "string" || !isObject(extensions) || Object.values(others).some((value) => !isEmpty(value)))
    return undefined;
  const slash = pos.indexOf("/");
  if (slash === -1) return undefined;
  let toDevice: string | undefined;
  for (const [name, value] of Object.entries(extensions)) {
    if (!isObject(value)) return undefined;
    const { next_batch: next, ...more } = value;
    if (name === "to_device" && typeof next === "string") toDevice = next;
    else if (next !== undefined) return undefined;
    for (const [key, one] of Object.entries(more))
      if (!(name === "e2ee" && CLASSIC_COUNTS.has(key)) && !isEmpty(one)) return undefined;
  }
  return { standing: standingText({ position: pos, toDevice }), position: pos.slice(slash + 1) };
}

/** Nothing in it at any depth. */
function isEmpty(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value) && Object.values(value).every(isEmpty);
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function jsonObject(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
