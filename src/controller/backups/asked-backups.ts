import type { Job } from "../../model/backup.ts";
import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import type { ControllerContext } from "../context.ts";

/** More than can end while one is written down. */
const ENDED_KEPT = 100;

interface Noted {
  name: string;
  asked: NonNullable<Tenant["status"]["backupAsked"]>;
}

/** Backups that people asked for, written down with their tenants: a controller that is started again goes on with them, as the same jobs. */
export class AskedBackups {
  readonly #context: Pick<ControllerContext, "store" | "reader">;

  /** Jobs that have ended, which may be quicker than what is written of them. */
  readonly #ended = new Set<string>();

  constructor(context: Pick<ControllerContext, "store" | "reader">) {
    this.#context = context;
  }

  async note(job: Job, { byTenantAdmin }: { byTenantAdmin: boolean }): Promise<void> {
    const { id, tenant, requestedAt } = job;
    const asked = { id, requestedAt, ...(byTenantAdmin ? { byTenantAdmin } : {}) };
    await modify(this.#context.store, "Tenant", tenant, ({ status }) => void (status.backupAsked = asked));
    if (this.#ended.has(id)) await this.done(job);
  }

  async done({ id, tenant }: Pick<Job, "id" | "tenant">): Promise<void> {
    this.#ended.add(id);
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
