import { request } from "undici";
import { z } from "zod";
import type { ControlClient } from "../../src/shard/control-client.ts";
import { learnSecret } from "./listener.ts";
import type { BenchTenant } from "./tenant.ts";

/** A shard's own figures; docs/control-api.md. */
const StatsSchema = z.object({
  threads: z.number(),
  databaseConnections: z.number(),
  liveHomeServers: z.number(),
  triggers: z.number(),
  fileDescriptors: z.number(),
  rssBytes: z.number(),
  pssBytes: z.number(),
  reactorLag: z.object({ maxSeconds: z.number() }),
});
export type ShardStats = z.infer<typeof StatsSchema>;

const STATS_MS = 30_000;

/** A running shard without a controller. */
export class RunningShard {
  readonly name: string;
  readonly pid: number;
  readonly control: ControlClient;
  readonly #address: string;
  readonly #token: string;
  readonly #stop: () => Promise<void>;

  constructor(shard: {
    name: string;
    pid: number;
    address: string;
    token: string;
    control: ControlClient;
    stop: () => Promise<void>;
  }) {
    this.name = shard.name;
    this.pid = shard.pid;
    this.control = shard.control;
    this.#address = shard.address;
    this.#token = shard.token;
    this.#stop = shard.stop;
  }

  /** @returns base URL of the tenant's own listener */
  async start(tenant: BenchTenant): Promise<string> {
    const state = await this.control.startTenant(tenant.name, tenant.assignment());
    if (state.address === null) throw new Error(`tenant ${tenant.name} was started and is ${state.phase}`);
    learnSecret(state.address, (await this.control.state()).gatewaySecret);
    return `http://${state.address}`;
  }

  async startAll(tenants: BenchTenant[]): Promise<string[]> {
    const urls: string[] = [];
    for (const tenant of tenants) urls.push(await this.start(tenant));
    return urls;
  }

  async stopTenant(tenant: BenchTenant, drainSeconds = 5): Promise<void> {
    await this.control.stopTenant(tenant.name, drainSeconds);
  }

  /**
   * @param collect collect garbage, return memory and end idle threads first
   *
   * Not before processor time is measured: for two minutes after it the shard looks at its reactor 200 times a second.
   */
  async stats(collect = false): Promise<ShardStats> {
    const { statusCode, body } = await request(`${this.#address}/v1/stats${collect ? "?collect=1" : ""}`, {
      headers: { authorization: `Bearer ${this.#token}` },
      signal: AbortSignal.timeout(STATS_MS),
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`shard ${this.name} answered /v1/stats with ${statusCode}: ${text}`);
    return StatsSchema.parse(JSON.parse(text));
  }

  /** Drains its tenants and ends the process. */
  async stop(): Promise<void> {
    await this.control.close();
    await this.#stop();
  }
}
