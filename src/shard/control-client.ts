import { Pool } from "undici";
import { z } from "zod";
import { AppServicePingSchema, type AppServicePing } from "../model/app-service.ts";
import { textWithin } from "../model/bounded-text.ts";
import type { OpenedSession, SessionToEnd, UserChange } from "../model/user.ts";
import {
  ConfigMeaningSchema,
  LoadSchema,
  PreparerStateSchema,
  ShardRefusal,
  ShardStateSchema,
  ShardUnreachable,
  StopResultSchema,
  TenantIdleSchema,
  TenantStateSchema,
  type Assignment,
  type PreparerCalls,
  type ShardControl,
  type ShardLoad,
  type ShardState,
  type StopOptions,
  type StopResult,
  type TenantCheck,
  type TenantIdle,
  type TenantState,
} from "../ports/shard-control.ts";

/** All metrics of one tenant are a few hundred kB, and a few MB where its users name as many labels as are kept (`multi_synapse/metrics.py`). */
const MOST_BYTES = 16 * 1024 ** 2;

const CheckSchema = z.object({ meaning: ConfigMeaningSchema.nullish(), warnings: z.array(z.string()).default([]) });

const SessionSchema = z.object({ userId: z.string(), token: z.string(), until: z.int().optional() });

/** Speaks to one shard's control API. */
export class ControlClient implements ShardControl {
  readonly #shard: string;
  readonly #pool: Pool;
  readonly #token: string;

  constructor(shard: string, address: string, token: string) {
    this.#shard = shard;
    this.#token = token;
    this.#pool = new Pool(address, { connections: 16, connect: { timeout: 2_000 } });
  }

  async state(timeoutMs = 3_000): Promise<ShardState> {
    return ShardStateSchema.parse(await this.#call("GET", "/v1/shard", undefined, timeoutMs));
  }

  async startTenant(name: string, assignment: Assignment, timeoutMs = 60_000): Promise<TenantState> {
    return TenantStateSchema.parse(await this.#call("PUT", `/v1/tenants/${name}`, assignment, timeoutMs));
  }

  async checkTenant(name: string, assignment: Assignment): Promise<TenantCheck> {
    const answer = await this.#call("POST", `/v1/tenants/${name}/check`, assignment, 30_000);
    const { meaning, warnings } = CheckSchema.parse(answer);
    return { ...(meaning ? { meaning } : {}), warnings };
  }

  async stopTenant(name: string, drainSeconds: number, options?: StopOptions): Promise<StopResult> {
    const answer = await this.#call(
      "DELETE",
      `/v1/tenants/${name}?drainSeconds=${drainSeconds}${options?.release ? "&release=true" : ""}`,
      undefined,
      (drainSeconds + 20) * 1000,
    );
    return StopResultSchema.parse(answer);
  }

  async idle(name: string): Promise<TenantIdle | undefined> {
    const answer = await ifKnown(name, this.#call("GET", `/v1/tenants/${name}/idle`, undefined, 10_000));
    return answer === undefined ? undefined : TenantIdleSchema.parse(answer);
  }

  async greet(name: string, spreadSeconds: number): Promise<number | undefined> {
    const path = `/v1/tenants/${name}/greet?spreadSeconds=${spreadSeconds}`;
    const answer = await ifKnown(name, this.#call("POST", path, undefined, 10_000));
    return answer === undefined ? undefined : z.object({ servers: z.int() }).parse(answer).servers;
  }

  async changeUser(name: string, localpart: string, change: UserChange): Promise<string | undefined> {
    const body = { user: localpart, ...changeAsAsked(change) };
    const answer = await ifKnown(name, this.#call("POST", `/v1/tenants/${name}/users`, body, 60_000));
    return answer === undefined ? undefined : z.object({ userId: z.string() }).parse(answer).userId;
  }

  async openSession(name: string, localpart: string, seconds: number): Promise<OpenedSession | undefined> {
    const body = { user: localpart, seconds };
    const answer = await ifKnown(name, this.#call("POST", `/v1/tenants/${name}/sessions`, body, 10_000));
    return answer === undefined ? undefined : SessionSchema.parse(answer);
  }

  async endSessions(name: string, sessions: readonly SessionToEnd[]): Promise<number | undefined> {
    const path = `/v1/tenants/${name}/sessions/end`;
    const answer = await ifKnown(name, this.#call("POST", path, { sessions }, 10_000));
    return answer === undefined ? undefined : z.object({ ended: z.int() }).parse(answer).ended;
  }

  async pingAppService(name: string, id: string): Promise<AppServicePing | undefined> {
    const path = `/v1/tenants/${name}/app-service-ping`;
    const answer = await ifKnown(name, this.#call("POST", path, { id }, 70_000));
    return answer === undefined ? undefined : AppServicePingSchema.parse(answer);
  }

  async metricsOf(name: string): Promise<string | undefined> {
    const answer = await ifKnown(name, this.#call("GET", `/v1/tenants/${name}/metrics`, undefined, 10_000, asText));
    return answer === undefined ? undefined : z.string().parse(answer);
  }

  async load(timeoutMs = 3_000): Promise<ShardLoad> {
    return LoadSchema.parse(await this.#call("GET", "/v1/load", undefined, timeoutMs));
  }

  readonly preparers: PreparerCalls = {
    create: async () => z.object({ id: z.string() }).parse(await this.#call("POST", "/v1/preparers", {}, 10_000)).id,
    state: async (id, not, waitSeconds) => {
      const path = `/v1/preparers/${id}?not=${not}&waitSeconds=${waitSeconds}`;
      return PreparerStateSchema.parse(await this.#call("GET", path, undefined, (waitSeconds + 10) * 1000));
    },
    command: async (id, command) => void (await this.#call("POST", `/v1/preparers/${id}`, command, 10_000)),
    end: async (id) => void (await this.#call("DELETE", `/v1/preparers/${id}`, undefined, 10_000)),
  };

  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  async #call(
    method: "GET" | "PUT" | "POST" | "DELETE",
    path: string,
    body: unknown,
    timeoutMs: number,
    read: (text: string) => unknown = parse,
  ): Promise<unknown> {
    let status: number;
    let text: string;
    try {
      const response = await this.#pool.request({
        method,
        path,
        headers: {
          authorization: `Bearer ${this.#token}`,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal: AbortSignal.timeout(timeoutMs),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      });
      status = response.statusCode;
      text = await textWithin(response.body, MOST_BYTES, `its answer has more than ${MOST_BYTES / 1024 ** 2} MiB`);
    } catch (error) {
      throw new ShardUnreachable(this.#shard, error);
    }
    if (status === 200) return read(text);
    const problem = z.object({ error: z.object({ code: z.string(), message: z.string() }) }).safeParse(parse(text));
    if (problem.success) throw new ShardRefusal(status, problem.data.error.code, problem.data.error.message);
    throw new ShardRefusal(
      status,
      "Unexpected",
      `shard ${this.#shard} answered ${method} ${path} with status ${status}`,
    );
  }
}

const asText = (text: string) => text;

function changeAsAsked(change: UserChange): object {
  switch (change.kind) {
    case "password":
      return { password: change.password, logoutDevices: change.logoutDevices };
    case "deactivate":
      return { deactivate: true, erase: change.erase };
    case "admin":
      return { admin: change.admin };
  }
}

/** The answer to a call about a tenant that shards of an earlier version do not know; undefined from those. */
async function ifKnown(tenant: string, answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (error) {
    // A shard that knows the call says which tenant is not there.
    const isUnknown = error instanceof ShardRefusal && error.code === "NotFound" && !error.message.includes(tenant);
    if (isUnknown) return undefined;
    throw error;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
