import { messageOf } from "../../model/errors.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { ControllerContext } from "../context.ts";
import { Rounds } from "./rounds.ts";

/** Synapse makes the text of all its metrics for each question. */
const TURN_EVERY_MS = 60_000;
/** One after the other; what they took is counted at the next question, too. */
const MOST_AT_ONCE = 200;

/** Asks the dedicated Synapses that tell their metrics what processor time they took. */
export class DedicatedUsageLoop {
  readonly #context: ControllerContext;
  readonly #rounds: Rounds;

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#rounds = new Rounds(context.clock, TURN_EVERY_MS, () => this.turn());
  }

  start(): void {
    if (this.#context.recorder) this.#rounds.start();
  }

  /** Waits for the one that is being asked. */
  close(): Promise<void> {
    return this.#rounds.close();
  }

  async turn(): Promise<void> {
    const { reader } = this.#context;
    const names = [...reader.values("Tenant")]
      .filter((tenant) => metricsOf(tenant))
      .map(({ metadata }) => metadata.name);
    await this.#rounds.forFew(names, MOST_AT_ONCE, (name) => this.#ask(name));
  }

  async #ask(name: string): Promise<void> {
    const { reader, recorder, clock, log, processTime } = this.#context;
    const tenant = reader.get("Tenant", name);
    const address = tenant && metricsOf(tenant);
    if (!tenant || address === undefined) return;
    try {
      const { startedAt, cpuSeconds } = await processTime(address);
      const { epoch } = tenant.status;
      await recorder?.looked(clock.now(), {
        tenants: { [name]: { run: `dedicated ${startedAt}`, epoch, cpuSeconds } },
      });
    } catch (error) {
      log.debug({ tenant: name, why: messageOf(error) }, "a dedicated Synapse does not tell its processor time");
    }
  }
}

/** Where the process that has the tenant tells its metrics, as `host:port`. */
function metricsOf({ spec, status }: Tenant): string | undefined {
  const { address, metricsPort } = spec.dedicated ?? {};
  if (metricsPort === undefined || address === undefined || status.dedicated?.address !== address) return undefined;
  return address.replace(/:\d+$/, `:${metricsPort}`);
}
