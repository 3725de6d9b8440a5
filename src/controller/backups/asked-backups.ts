import type { Job } from "../../model/backup.ts";
import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import type { ControllerContext } from "../context.ts";

/** More than can end while one is written down. */
const ENDED_KEPT = 100;
/** A backup at which two controllers in a row ended without a word may be what ended them. */
const MOST_ATTEMPTS = 2;

interface Noted {
  name: string;
  asked: NonNullable<Tenant["status"]["backupAsked"]>;
}

/** Backups that people asked for, written down with their tenants: a controller that is started again goes on with them, as the same jobs. */
export class AskedBackups {
  readonly #context: Pick<ControllerContext, "store" | "reader">;

  /** Jobs that have ended, which may be quicker than what is written of them. */
  readonly #ended = new Set<string>();
  /** Jobs that have begun here, and how many attempts there have been, this one included. */
  readonly #attempts = new Map<string, number>();

  constructor(context: Pick<ControllerContext, "store" | "reader">) {
    this.#context = context;
  }

  async note(job: Job, { byTenantAdmin }: { byTenantAdmin: boolean }): Promise<void> {
    const { id, tenant, requestedAt } = job;
    await modify(this.#context.store, "Tenant", tenant, ({ status }) => {
      // It may have begun by now.
      const attempts = this.#attempts.get(id);
      const more = { ...(byTenantAdmin ? { byTenantAdmin } : {}), ...(attempts === undefined ? {} : { attempts }) };
      status.backupAsked = { id, requestedAt, ...more };
    });
    if (this.#ended.has(id)) await this.done(job);
  }

  /** Is written before anything is done that could end the controller. */
  async begin({ id, tenant }: Pick<Job, "id" | "tenant">): Promise<void> {
    const before = this.#context.reader.get("Tenant", tenant)?.status.backupAsked;
    const attempts = ((before?.id === id && before.attempts) || 0) + 1;
    this.#attempts.set(id, attempts);
    await this.#write({ id, tenant }, (asked) => void (asked.attempts = attempts));
  }

  /** A controller that stops as it should was not ended by its work. */
  async stopped({ id, tenant }: Pick<Job, "id" | "tenant">): Promise<void> {
    const attempts = (this.#attempts.get(id) ?? 0) - 1;
    this.#attempts.delete(id);
    if (attempts < 0) return;
    await this.#write({ id, tenant }, (asked) => {
      if (attempts > 0) asked.attempts = attempts;
      else delete asked.attempts;
    });
  }

  /** Whether it is not to be begun again without being asked for. */
  static isGivenUp({ attempts = 0 }: Noted["asked"]): boolean {
    return attempts >= MOST_ATTEMPTS;
  }

  async #write({ id, tenant }: Pick<Job, "id" | "tenant">, change: (asked: Noted["asked"]) => void): Promise<void> {
    await modify(this.#context.store, "Tenant", tenant, ({ status }) => {
      if (status.backupAsked?.id !== id) return false;
      change(status.backupAsked);
      return true;
    });
  }

  async done({ id, tenant }: Pick<Job, "id" | "tenant">): Promise<void> {
    this.#ended.add(id);
    this.#attempts.delete(id);
    const [oldest] = this.#ended;
    if (this.#ended.size > ENDED_KEPT && oldest !== undefined) this.#ended.delete(oldest);
    await modify(this.#context.store, "Tenant", tenant, ({ status }) => {
      if (status.backupAsked?.id !== id) return false;
      delete status.backupAsked;
      return true;
    });
  }

  /** Those that were not done before the controller ended. */
  left(): Noted[] {
    return this.#noted().filter(({ asked }) => !this.#ended.has(asked.id));
  }

  /** Takes back the notes of those that have ended here, where that could not be written before. */
  async tidy(): Promise<void> {
    for (const { name, asked } of this.#noted())
      if (this.#ended.has(asked.id)) await this.done({ id: asked.id, tenant: name });
  }

  #noted(): Noted[] {
    return [...this.#context.reader.values("Tenant")].flatMap(({ metadata, status }) =>
      status.backupAsked && metadata.deletionTimestamp === undefined
        ? [{ name: metadata.name, asked: status.backupAsked }]
        : [],
    );
  }
}
