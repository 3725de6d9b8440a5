import type { Job } from "../../model/backup.ts";
import { UserError } from "../../model/errors.ts";
import type { ImportRequest } from "../../model/import.ts";
import { tenantNameProblem } from "../../model/names.ts";
import type { Jobs } from "../backups/jobs.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { ClusterService } from "../service/cluster-service.ts";
import type { ImportService } from "../service/import-service.ts";
import { importHomeserver, type ImportMeans } from "./import.ts";

export interface ImportSettings {
  jobs: Jobs;
  /** That tenants run which name none. */
  release(): string;
}

export class StoreImportService implements ImportService {
  readonly #context: ControllerContext;
  readonly #service: Pick<ClusterService, "createTenant">;
  readonly #means: ImportMeans;
  readonly #settings: ImportSettings;

  constructor(
    context: ControllerContext,
    service: Pick<ClusterService, "createTenant">,
    means: ImportMeans,
    settings: ImportSettings,
  ) {
    this.#context = context;
    this.#service = service;
    this.#means = means;
    this.#settings = settings;
  }

  async import(name: string, request: ImportRequest): Promise<Job> {
    const problem = tenantNameProblem(name);
    if (problem !== undefined) throw new UserError("InvalidInput", problem);
    const parts = { context: this.#context, service: this.#service, ...this.#means };
    const release = request.release ?? this.#settings.release();
    return this.#settings.jobs.add("Import", name, async ({ job, say, signal }) => {
      const work = { say, signal, now: () => this.#context.clock.now() };
      const message = await importHomeserver(parts, name, { ...request, release }, work, (options) => {
        job.options = options;
      });
      if (!request.rehearse)
        await recordEvent(this.#context, { type: "Normal", reason: "Imported", object: `Tenant/${name}`, message });
      return message;
    });
  }
}
