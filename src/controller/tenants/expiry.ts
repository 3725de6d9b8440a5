import { messageOf } from "../../model/errors.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { removeFormer } from "./former-databases.ts";
import { KeptTenants } from "./kept-tenants.ts";

/** Removes the data of deleted tenants whose time is over. */
export class Expiry {
  readonly #context: ControllerContext;
  readonly #kept: KeptTenants | undefined;
  /** Since when this controller has seen that a tenant's time is over, by a clock that nobody can set. */
  readonly #dueSince = new Map<string, number>();
  #cancel: () => void = () => {};
  #turn: Promise<void> | undefined;
  #isClosed = false;

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#kept = context.deletions && new KeptTenants(context, context.deletions);
  }

  start(): void {
    const { clock, timing } = this.#context;
    if (this.#isClosed || !this.#kept) return;
    this.#cancel = clock.after(timing.expiryEvery * 1000, () => {
      this.#turn = this.#look().finally(() => this.start());
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#turn;
  }

  async #look(): Promise<void> {
    const { log, timing } = this.#context;
    const due: { name: string; keptUntil: string }[] = [];
    try {
      await this.#kept?.expire(({ name, deletedAt, keptUntil }) =>
        this.#isOver(`${name} ${deletedAt}`, keptUntil, () => void due.push({ name, keptUntil })),
      );
      await removeFormer(this.#context, (name, { server, keptUntil }) =>
        this.#isOver(`${name} ${server} ${keptUntil}`, keptUntil),
      );
      for (const { name, keptUntil } of due)
        await recordEvent(this.#context, {
          type: "Warning",
          reason: "PurgeDue",
          object: `Tenant/${name}`,
          message: `the deleted tenant ${name} was kept until ${keptUntil}; its data is removed in ${Math.round(timing.expiryGrace / 60)} minutes`,
        });
    } catch (error) {
      log.warn({ why: messageOf(error) }, "cannot look for deleted tenants whose time is over; tried again later");
    }
  }

  /** @param seen called when a time is found to be over for the first time */
  #isOver(key: string, keptUntil: string, seen = () => {}): boolean {
    const { clock, timing } = this.#context;
    // By the machine's clock, to which the date was promised. One that is wrong for a while, as at boot, removes nothing.
    // A date that cannot be read is never over.
    if (!(clock.wall() >= Date.parse(keptUntil))) {
      this.#dueSince.delete(key);
      return false;
    }
    const since = this.#dueSince.get(key);
    if (since !== undefined) return performance.now() - since >= timing.expiryGrace * 1000;
    this.#dueSince.set(key, performance.now());
    seen();
    return false;
  }
}
