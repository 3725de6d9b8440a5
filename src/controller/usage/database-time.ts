import { ofTenants } from "../tenants/storage-names.ts";
import { messageOf } from "../../model/errors.ts";
import { nextLoad, type Load } from "../../model/load.ts";
import type { ControllerContext } from "../context.ts";
import { nextTenants, Rounds } from "./rounds.ts";

/** One look-up of as many takes the server some milliseconds; of more tenants each is looked at less often. */
const MOST_AT_ONCE = 2_000;

/** For how much of the time the database server runs statements of each tenant, for its budget. */
export class DatabaseTimeLoop {
  readonly #context: ControllerContext;
  readonly #rounds: Rounds;
  readonly #loads = new Map<string, Load>();
  /** The last one that was asked about. */
  #last = "";
  #hasFailed = false;

  constructor(context: ControllerContext) {
    this.#context = context;
    const { clock, timing } = context;
    this.#rounds = new Rounds(clock, timing.loadEvery * 1000, () => this.turn());
  }

  start(): void {
    this.#rounds.start();
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async turn(): Promise<void> {
    const { reader, databases, usage, clock, cpuBudget, log } = this.#context;
    if (cpuBudget.databasePerTenant === 0) return;
    const next = nextTenants(reader, this.#last, MOST_AT_ONCE, ({ status }) => status.shard !== undefined);
    const [first] = next;
    // Once in a round.
    if (first === undefined || first.metadata.name <= this.#last) this.#forget();
    if (first === undefined) return;
    try {
      const found = await ofTenants(next, (storages) => databases.activeSeconds(storages));
      const at = clock.now();
      for (const [name, cpuSeconds] of found) {
        const look = { at, cpuSeconds, starvedSeconds: 0 };
        const load = nextLoad(this.#loads.get(name), look, cpuBudget.averageSeconds);
        this.#loads.set(name, load);
        if (load.share !== undefined) usage.setDatabaseShare(name, load.share);
      }
      this.#last = next.at(-1)?.metadata.name ?? "";
      this.#hasFailed = false;
    } catch (error) {
      if (!this.#hasFailed) log.warn({ why: messageOf(error) }, "cannot ask how long tenants' statements run");
      this.#hasFailed = true;
    }
  }

  #forget(): void {
    for (const name of this.#loads.keys())
      if (this.#context.reader.get("Tenant", name) === undefined) this.#loads.delete(name);
  }
}
