import { Pool } from "undici";
import { z } from "zod";

/** A shard's answers; docs/control-api.md is the contract. */
const TenantStateSchema = z.object({
  name: z.string(),
  serverName: z.string(),
  epoch: z.number(),
  phase: z.enum(["starting", "running", "draining", "stopping", "failed", "fenced"]),
  address: z.string().nullable(),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
});
export type TenantState = z.infer<typeof TenantStateSchema>;

const ShardStateSchema = z.object({
  name: z.string(),
  synapseVersion: z.string(),
  instance: z.string(),
  schemaVersion: z.number(),
  schemaCompatVersion: z.number(),
  tenants: z.array(TenantStateSchema),
});
export type ShardState = z.infer<typeof ShardStateSchema>;

const StopResultSchema = z.object({ absent: z.boolean(), released: z.boolean().default(false) });
export type StopResult = z.infer<typeof StopResultSchema>;
export interface StopOptions {
  release: boolean;
}

const LoadSchema = z.object({
  tenants: z.record(z.string(), z.object({ cpuSeconds: z.number(), requests: z.number() })),
  process: z.object({ cpuSeconds: z.number(), uptimeSeconds: z.number() }),
});
export type ShardLoad = z.infer<typeof LoadSchema>;

export interface Assignment {
  serverName: string;
  epoch: number;
  /** Our part of homeserver.yaml. */
  base: Record<string, unknown>;
  /** The user's part, as YAML text. */
  overrides: string;
  signingKey: string;
  /** To listen on if it is free. */
  port?: number;
}

const PreparerStateSchema = z.object({
  state: z.enum(["starting", "ready", "working", "ended"]),
  /** What it said last, as it would on its output: docs/control-api.md, *The preparer*. */
  event: z.record(z.string(), z.unknown()).nullable(),
});
export type PreparerState = z.infer<typeof PreparerStateSchema>;

/** Preparers inside a shard's machine or pod. One that nobody asks about for half a minute is ended. */
export interface PreparerCalls {
  /** @throws ShardRefusal TooManyPreparers, ShardUnreachable */
  create(): Promise<string>;
  /** How it is; waits so long for another state than `not`. @throws ShardRefusal NotFound, ShardUnreachable */
  state(id: string, not: PreparerState["state"], waitSeconds: number): Promise<PreparerState>;
  /** Gives a ready one its command. @throws ShardRefusal NotFound, NotReady, ShardUnreachable */
  command(id: string, command: object): Promise<void>;
  end(id: string): Promise<void>;
}

/** The shard answered, and it was a no. `code` is one of docs/control-api.md. */
export class ShardRefusal extends Error {
  readonly code: string;
  readonly status: number;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.name = "ShardRefusal";
    this.status = status;
    this.code = code;
  }
}

/** The shard did not answer in time, or not at all; what it did is not known. */
export class ShardUnreachable extends Error {
  constructor(shard: string, cause: unknown) {
    super(`shard ${shard} does not answer`, { cause });
    this.name = "ShardUnreachable";
  }
}

/** What the controller asks of a shard. Every call is bounded in time. */
export interface ShardControl {
  state(): Promise<ShardState>;
  /** Starts a tenant and waits until it serves. @throws ShardRefusal, ShardUnreachable */
  startTenant(name: string, assignment: Assignment): Promise<TenantState>;
  /** Whether the configuration could be started here; starts nothing. @throws ShardRefusal with the reason, ShardUnreachable */
  checkTenant(name: string, assignment: Assignment): Promise<void>;
  /**
   * Drains and stops a tenant; fine if it is not there. `release`: no shard shall have it next, so its database is released.
   * @throws ShardRefusal, ShardUnreachable
   */
  stopTenant(name: string, drainSeconds: number, options?: StopOptions): Promise<StopResult>;
  load(): Promise<ShardLoad>;
  readonly preparers: PreparerCalls;
  close(): Promise<void>;
}

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

  async checkTenant(name: string, assignment: Assignment): Promise<void> {
    await this.#call("POST", `/v1/tenants/${name}/check`, assignment, 30_000);
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
      text = await response.body.text();
    } catch (error) {
      throw new ShardUnreachable(this.#shard, error);
    }
    const answer = parse(text);
    if (status === 200) return answer;
    const problem = z.object({ error: z.object({ code: z.string(), message: z.string() }) }).safeParse(answer);
    if (problem.success) throw new ShardRefusal(status, problem.data.error.code, problem.data.error.message);
    throw new ShardRefusal(
      status,
      "Unexpected",
      `shard ${this.#shard} answered ${method} ${path} with status ${status}`,
    );
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
