/** Users that send and sync at a given rate, and count what they saw. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Agent } from "undici";
import { listenerHeaders } from "./lib/listener.ts";

const REQUEST_MS = 120_000;

/** Where a homeserver is reached: directly, or through the gateway, which knows it by its name. */
export interface Target {
  url: string;
  host?: string;
}

export interface Answer {
  /** When it was sent and answered: milliseconds, `performance.now()`. */
  sent: number;
  answered: number;
  /** HTTP status; 0 without an answer. */
  status: number;
  what: string;
}

export function ok({ status }: Answer): boolean {
  return status === 200;
}

export class LoadUser {
  readonly #target: Target;
  readonly #listener: Record<string, string>;
  readonly #agent: Agent;
  readonly #token: string;
  #since: string | undefined;
  #transactions = 0;

  private constructor(target: Target, agent: Agent, token: string) {
    this.#target = target;
    this.#listener = listenerHeaders(target.url);
    this.#agent = agent;
    this.#token = token;
  }

  /** Each login is a device of its own, whose syncs nobody shares. @throws Error when it is refused */
  static async logIn(target: Target, agent: Agent, user: string, password: string): Promise<LoadUser> {
    const anonymous = new LoadUser(target, agent, "");
    const { json } = await anonymous.#ask("POST", "/login", "login", {
      type: "m.login.password",
      identifier: { type: "m.id.user", user },
      password,
    });
    return new LoadUser(target, agent, must<string>(json, "access_token"));
  }

  static withToken(target: Target, agent: Agent, token: string): LoadUser {
    return new LoadUser(target, agent, token);
  }

  async createRoom(): Promise<string> {
    const { json } = await this.#ask("POST", "/createRoom", "createRoom", { preset: "private_chat" });
    return must<string>(json, "room_id");
  }

  async send(room: string): Promise<Answer> {
    this.#transactions += 1;
    const path = `/rooms/${encodeURIComponent(room)}/send/m.room.message/${this.#transactions}`;
    const body = { msgtype: "m.text", body: `message ${this.#transactions}` };
    return (await this.#ask("PUT", path, "send", body)).answer;
  }

  /** Continues where the last one ended. @param timeout how long the homeserver may wait for something to happen; milliseconds */
  async sync(timeout: number, signal?: AbortSignal): Promise<Answer> {
    const since = this.#since === undefined ? "" : `&since=${encodeURIComponent(this.#since)}`;
    const { answer, json } = await this.#ask("GET", `/sync?timeout=${timeout}${since}`, "sync", undefined, signal);
    if (ok(answer)) this.#since = must<string>(json, "next_batch");
    return answer;
  }

  async whoami(): Promise<Answer> {
    return (await this.#ask("GET", "/account/whoami", "whoami")).answer;
  }

  async #ask(
    method: "GET" | "POST" | "PUT",
    path: string,
    what: string,
    body?: object,
    signal?: AbortSignal,
  ): Promise<{ answer: Answer; json: Record<string, unknown> }> {
    const { url, host } = this.#target;
    const sent = performance.now();
    const answer = (status: number, why = ""): Answer => ({
      sent,
      answered: performance.now(),
      status,
      what: `${what}${why}`,
    });
    try {
      const { statusCode, body: content } = await this.#agent.request({
        origin: url,
        path: `/_matrix/client/v3${path}`,
        method,
        headers: {
          ...this.#listener,
          ...(host === undefined ? {} : { host }),
          ...(body ? { "content-type": "application/json" } : {}),
          ...(this.#token === "" ? {} : { authorization: `Bearer ${this.#token}` }),
        },
        body: body ? JSON.stringify(body) : null,
        signal: AbortSignal.any([AbortSignal.timeout(REQUEST_MS), ...(signal ? [signal] : [])]),
      });
      const text = await content.text();
      if (statusCode !== 200) return { answer: answer(statusCode, `: ${text.slice(0, 200)}`), json: {} };
      return { answer: answer(statusCode), json: JSON.parse(text) as Record<string, unknown> };
    } catch (error) {
      return { answer: answer(0, `: ${String(error)}`), json: {} };
    }
  }
}

function must<T>(json: Record<string, unknown>, key: string): T {
  if (json[key] === undefined) throw new Error(`the homeserver's answer has no ${key}: ${JSON.stringify(json)}`);
  return json[key] as T;
}

/** Begins something `rate` times a second until the signal, whether or not earlier ones are done. @returns all results */
export async function atRate<T>(rate: number, signal: AbortSignal, begin: () => Promise<T>): Promise<T[]> {
  const begun: Promise<T>[] = [];
  const start = performance.now();
  while (!signal.aborted) {
    const due = start + (begun.length * 1000) / rate;
    const early = due - performance.now();
    if (early > 0) await sleep(early);
    if (!signal.aborted) begun.push(begin());
  }
  return Promise.all(begun);
}
