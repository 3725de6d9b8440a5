import { ofTenants } from "../tenants/storage-names.ts";
import { messageOf } from "../../model/errors.ts";
import { timeText } from "../../model/clock.ts";
import type { ControllerContext } from "../context.ts";
import { nextTenants, Rounds } from "./rounds.ts";

/** The sizes of all databases are looked at once in this number of turns: the server looks at each of their files. */
const TURNS = 10;
/** Also with very many tenants; their round takes longer then. */
const MOST_AT_ONCE = 500;

/** Asks the database server what tenants take of it, a few of them at a time, and ends what takes too long. */
export class DatabaseUsageLoop {
  readonly #context: ControllerContext;
  readonly #rounds: Rounds;
  /** The last one that was asked about. */
  #last = "";

  constructor(context: ControllerContext) {
    this.#context = context;
    const { clock, timing } = context;
    this.#rounds = new Rounds(clock, timing.databaseUsageEvery * 1000, () => this.turn());
  }

  start(): void {
    this.#rounds.start();
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async turn(): Promise<void> {
    const { reader, databases, usage, loads, clock, log } = this.#context;
    try {
      for (const database of await databases.endOverdue())
        log.warn({ database }, "a statement or transaction of a tenant's role took too long; its connection was ended");
    } catch (error) {
      log.warn({ why: messageOf(error) }, "cannot look for statements that take too long; tried again later");
    }
    const isThere = (tenant: string) => reader.get("Tenant", tenant) !== undefined;
    usage.keepOnly(isThere);
    loads.keepOnly(isThere);
    const count = Math.min(MOST_AT_ONCE, Math.ceil(reader.sorted("Tenant").length / TURNS));
    const next = nextTenants(reader, this.#last, count);
    if (next.length === 0) return;
    try {
      const found = await ofTenants(next, (storages) => databases.usage(storages));
      for (const [tenant, figures] of found) usage.setDatabase(tenant, { ...figures, at: timeText(clock.now()) });
      this.#last = next.at(-1)?.metadata.name ?? "";
    } catch (error) {
      log.warn({ why: messageOf(error) }, "cannot ask what tenants' databases take; tried again later");
    }
  }
}
