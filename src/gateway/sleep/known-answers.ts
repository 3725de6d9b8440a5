import type { IncomingHttpHeaders } from "node:http";
import type { Route } from "../../model/routes.ts";
import { keptAnswer, type KeptAnswer } from "./answer.ts";
import { Interner } from "./interner.ts";

/** What anybody may ask of a homeserver without saying who they are, and the answer depends on its release, configuration and key alone. */
export type Topic = "versions" | "auth" | "keys" | "well-known" | "server" | "login" | "preflight" | "root" | "health";
export const TOPICS: readonly Topic[] = [
  "versions",
  "auth",
  "keys",
  "well-known",
  "server",
  "login",
  "preflight",
  "root",
  "health",
];

export interface Question {
  topic: Topic;
  /** Among those of one host. */
  key: string;
}

const PATHS: Record<string, Topic> = {
  "/": "root",
  "/health": "health",
  "/_matrix/client/versions": "versions",
  "/_matrix/client/v1/auth_metadata": "auth",
  "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata": "auth",
  "/_matrix/client/unstable/org.matrix.msc2965/auth_issuer": "auth",
  "/_matrix/client/v3/login": "login",
  "/_matrix/client/r0/login": "login",
  "/_matrix/key/v2/server": "keys",
  "/_matrix/key/v2/server/": "keys",
  "/.well-known/matrix/server": "well-known",
  "/.well-known/matrix/client": "well-known",
  "/.well-known/matrix/support": "well-known",
  "/_matrix/federation/v1/version": "server",
};
/** Synapse allows other headers in requests below these than in all others. */
const RENDEZVOUS = /rendezvous/;
/** Also "there is none" is an answer. */
const STATUSES: Partial<Record<Topic, readonly number[]>> = {
  auth: [200, 404],
  "well-known": [200, 404],
  root: [200, 302, 404],
  preflight: [200, 204],
};
/** A tenant is awake once a day at least; what was not asked for since then may be out of date. */
const MAX_AGE_MS = 24 * 3_600_000;
/** Of a signing key's validity, the part that has to be left: other servers use what they get for a while. */
const KEY_PART = 0.25;
const MAX_BODY_BYTES = 16 * 1024;
/** Of one tenant: of each host some dozens of paths. */
const MAX_ANSWERS = 64;
const ENTRY_BYTES = 250;

/** @returns what a request asks of any homeserver; undefined: it asks this one, or for somebody */
export function questionOf(method: string, target: string, headers: IncomingHttpHeaders): Question | undefined {
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  if (method === "OPTIONS") {
    if (headers["access-control-request-method"] === undefined) return undefined;
    return { topic: "preflight", key: RENDEZVOUS.test(path) ? "preflight rendezvous" : "preflight" };
  }
  const topic = method === "GET" && Object.hasOwn(PATHS, path) ? PATHS[path] : undefined;
  if (!topic || headers.authorization !== undefined || headers.range !== undefined) return undefined;
  // Synapse reads no other parameter here.
  if (mark !== -1 && target.includes("access_token", mark)) return undefined;
  return { topic, key: path };
}

interface Known {
  answer: KeptAnswer;
  until: number;
  bytes: number;
}

interface TenantAnswers {
  /** What they depend on. */
  stamp: string;
  /** By host and question. */
  answers: Map<string, Known>;
}

/** What homeservers said last when they were asked such questions. */
export class KnownAnswers {
  readonly #limits: { maxRememberedBytes: number };
  readonly #tenants = new Map<string, TenantAnswers>();
  readonly #texts = new Interner();
  #bytes = 0;

  constructor(limits: { maxRememberedBytes: number }) {
    this.#limits = limits;
  }

  get bytes(): number {
    return this.#bytes + this.#texts.bytes;
  }

  /** @param now milliseconds since the epoch */
  remember(
    route: Route,
    host: string,
    { topic, key }: Question,
    status: number,
    headers: IncomingHttpHeaders,
    body: string,
    now: number,
  ): void {
    const { tenant } = route;
    const stamp = stampOf(route);
    if (this.#tenants.get(tenant)?.stamp !== stamp) this.forget(tenant);
    let known = this.#tenants.get(tenant);
    const place = `${host} ${key}`;
    if (known) this.#drop(known, place);
    const answer = (STATUSES[topic] ?? [200]).includes(status) ? keptAnswer(status, headers, body) : undefined;
    const until = topic === "keys" ? keyUntil(body, now) : now + MAX_AGE_MS;
    if (!answer || body.length > MAX_BODY_BYTES || until <= now) return;
    if ((known?.answers.size ?? 0) >= MAX_ANSWERS || this.bytes >= this.#limits.maxRememberedBytes) return;
    if (!known) this.#tenants.set(tenant, (known = { stamp, answers: new Map() }));
    const bytes = ENTRY_BYTES + place.length;
    const kept = { status, head: this.#texts.take(answer.head), body: this.#texts.take(body) };
    known.answers.set(place, { answer: kept, until, bytes });
    this.#bytes += bytes;
  }

  /** @param now milliseconds since the epoch */
  find(route: Route, host: string, { key }: Question, now: number): KeptAnswer | undefined {
    const known = this.#tenants.get(route.tenant);
    const found = known?.answers.get(`${host} ${key}`);
    return found && known?.stamp === stampOf(route) && now < found.until ? found.answer : undefined;
  }

  /** Its hosts stay, and so does what they depend on. */
  rename(former: string, to: string): void {
    const known = this.#tenants.get(former);
    if (!known) return;
    this.forget(to);
    this.#tenants.delete(former);
    this.#tenants.set(to, known);
  }

  forget(tenant: string): void {
    const known = this.#tenants.get(tenant);
    if (!known) return;
    for (const place of known.answers.keys()) this.#drop(known, place);
    this.#tenants.delete(tenant);
  }

  #drop({ answers }: TenantAnswers, place: string): void {
    const known = answers.get(place);
    if (!known) return;
    answers.delete(place);
    this.#bytes -= known.bytes;
    this.#texts.give(known.answer.head);
    this.#texts.give(known.answer.body);
  }
}

/** Release and configuration, where the controller tells; else each start of the tenant may be with others. */
function stampOf({ revision, epoch }: Route): string {
  return revision ?? `epoch ${epoch}`;
}

/** Until when the answer about a homeserver's keys may be given; 0: not at all. */
function keyUntil(body: string, now: number): number {
  try {
    const { valid_until_ts: until } = JSON.parse(body) as { valid_until_ts?: unknown };
    return typeof until === "number" ? until - (until - now) * KEY_PART : 0;
  } catch {
    return 0;
  }
}
