import { UserError } from "../../model/errors.ts";
import type { Tenant } from "../../model/tenant.ts";
import { ShardRefusal, ShardUnreachable } from "../../ports/shard-control.ts";
import type { ControllerContext } from "../context.ts";

/** Each answer costs milliseconds of a reactor that neighbours need, and who asks may be a customer: so often, and not more, it is asked. */
const KEPT_MS = 5_000;

/** What is exported of one tenant, for whoever may see no other. */
export class TenantMetrics {
  readonly #context: ControllerContext;
  readonly #answers = new Map<string, { until: number; text: Promise<string> }>();

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  async of(tenant: Tenant): Promise<string> {
    const { name, creationTimestamp } = tenant.metadata;
    const { phase, shard } = tenant.status;
    const client = shard === undefined ? undefined : this.#context.shardClients.get(shard);
    // One that sleeps is well: that it has no series is all there is to tell.
    const runs =
      phase === "Running" && client ? await this.#ofShard(name, creationTimestamp, () => client.metricsOf(name)) : "";
    return `${phaseLines(name, phase)}${runs}`;
  }

  /** @param since when it was created: another one may have its name now */
  #ofShard(name: string, since: string, ask: () => Promise<string | undefined>): Promise<string> {
    const key = `${name} ${since}`;
    const now = this.#context.clock.now();
    for (const [asked, { until }] of this.#answers) if (until <= now) this.#answers.delete(asked);
    const kept = this.#answers.get(key);
    if (kept) return kept.text;
    const text = answerOf(name, ask());
    this.#answers.set(key, { until: now + KEPT_MS, text });
    return text;
  }
}

async function answerOf(name: string, asked: Promise<string | undefined>): Promise<string> {
  try {
    return (await asked) ?? "";
  } catch (error) {
    // It has gone since.
    if (error instanceof ShardRefusal && error.status === 404) return "";
    if (error instanceof ShardRefusal || error instanceof ShardUnreachable)
      throw new UserError("Unavailable", `the shard of tenant ${name} does not tell its metrics now`);
    throw error;
  }
}

function phaseLines(name: string, phase: string): string {
  const family = "synapse_shards_tenant_phase";
  return `# HELP ${family} 1 for the phase in which the tenant is.\n# TYPE ${family} gauge\n${family}{tenant="${name}",phase="${phase}"} 1\n`;
}
