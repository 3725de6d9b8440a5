import type { Job } from "../../model/backup.ts";
import { timeText } from "../../model/clock.ts";
import { messageOf } from "../../model/errors.ts";
import type { Inspection, InspectionFacts } from "../../model/inspection.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import type { Inspections } from "../../ports/inspections.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { InspectionService, InspectRequest } from "../service/inspection-service.ts";
import { knownStorageOf } from "../tenants/storage-names.ts";
import { refuseUnlike } from "../start/copy-checks.ts";
import type { StoreBackupService } from "./store-backup-service.ts";

const HOUR_MS = 3_600_000;
const LOOK_EVERY_MS = 600_000;

export class StoreInspectionService implements InspectionService {
  readonly #context: ControllerContext;
  readonly #backups: StoreBackupService;
  readonly #inspections: Inspections;
  #cancel: () => void = () => {};
  #look: Promise<void> | undefined;
  #isClosed = false;

  constructor(context: ControllerContext, backups: StoreBackupService, inspections: Inspections) {
    this.#context = context;
    this.#backups = backups;
    this.#inspections = inspections;
  }

  /** Begins to remove what is over, also what was interrupted. */
  async start(): Promise<void> {
    await this.removeOver();
    this.#again();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#look;
  }

  async inspect(tenant: string, { hours, ...request }: InspectRequest): Promise<Job> {
    const source = await this.#backups.databaseOf(tenant, request);
    return this.#backups.work.add("Inspect", tenant, async ({ say, signal }) => {
      const { clock } = this.#context;
      const work = { say, signal, now: () => clock.now() };
      await source.read(async (expected, restore) => {
        const madeAt = clock.wall();
        const until = timeText(madeAt + hours * HOUR_MS);
        const about = { tenant: await this.#storageOf(tenant), of: source.words, madeAt: timeText(madeAt), until };
        const found = await this.#inspections.make(about, restore);
        refuseUnlike(source.words, expected, found);
      }, work);
      const message = `${source.words} of ${tenant} can be looked at beside the tenant`;
      await recordEvent(this.#context, {
        type: "Normal",
        reason: "InspectionMade",
        object: `Tenant/${tenant}`,
        message,
      });
      return message;
    });
  }

  async inspections(): Promise<Inspection[]> {
    const found = (await this.#inspections.list()).map((inspection) => this.#named(inspection));
    return found.toSorted((a, b) => (a.tenant < b.tenant ? -1 : 1));
  }

  async inspection(tenant: string): Promise<InspectionFacts> {
    const facts = await this.#inspections.facts(await this.#storageOf(tenant));
    return { ...facts, inspection: { ...facts.inspection, tenant } };
  }

  async inspectionLogin(tenant: string): Promise<DatabaseLogin> {
    return this.#inspections.login(await this.#storageOf(tenant));
  }

  async removeInspection(tenant: string): Promise<void> {
    return this.#inspections.remove(await this.#storageOf(tenant));
  }

  /** They are kept by what tenants' data are named by, which stays. */
  async #storageOf(tenant: string): Promise<string> {
    return (await knownStorageOf(this.#context, tenant)) ?? tenant;
  }

  #named(inspection: Inspection): Inspection {
    const tenant = this.#context.reader.withStorage(inspection.tenant)?.metadata.name ?? inspection.tenant;
    return { ...inspection, tenant };
  }

  #again(): void {
    if (this.#isClosed) return;
    this.#cancel = this.#context.clock.after(LOOK_EVERY_MS, () => {
      this.#look = this.removeOver().finally(() => this.#again());
    });
  }

  /** Removes those whose time is over, and what is left of those that were never complete. Never fails. */
  async removeOver(): Promise<void> {
    try {
      await this.#inspections.clean();
      const now = this.#context.clock.wall();
      for (const { tenant, until } of await this.#inspections.list()) {
        if (Date.parse(until) > now) continue;
        await this.#inspections.remove(tenant);
        this.#context.log.info(
          { tenant },
          "an earlier state of a tenant was looked at for long enough, and is removed",
        );
      }
    } catch (error) {
      this.#context.log.warn({ why: messageOf(error) }, "it cannot be seen which inspections are over; tried again");
    }
  }
}
