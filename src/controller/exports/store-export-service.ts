import type { ArchiveFile } from "../../model/archive.ts";
import { UserError } from "../../model/errors.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { ClusterService } from "../service/cluster-service.ts";
import type { ExportService } from "../service/export-service.ts";
import { asItRuns } from "../start/configs.ts";
import { exportedFiles, type ExportMeans } from "./export.ts";

/** A dump takes processor time from those that serve, and space on their disk. */
const AT_ONCE = 2;

export class StoreExportService implements ExportService {
  readonly #context: ControllerContext;
  readonly #service: Pick<ClusterService, "getTenant">;
  readonly #means: ExportMeans;
  readonly #underWay = new Set<string>();

  constructor(context: ControllerContext, service: Pick<ClusterService, "getTenant">, means: ExportMeans) {
    this.#context = context;
    this.#service = service;
    this.#means = means;
  }

  async export(name: string, signal: AbortSignal): Promise<AsyncIterable<ArchiveFile>> {
    const tenant = await this.#service.getTenant(name);
    const runs = await asItRuns(this.#context, tenant);
    if (!runs || !tenant.status.provisioned)
      throw new UserError("Conflict", `tenant ${name} is ${tenant.status.phase}, and has no database or keys yet`);
    if (this.#underWay.has(name)) throw new UserError("Conflict", `tenant ${name} is being exported already`);
    if (this.#underWay.size >= AT_ONCE)
      throw new UserError("Unavailable", `${AT_ONCE} tenants are being exported already; try again after them`);
    this.#underWay.add(name);
    const { tenantDefaults } = this.#context.environment(tenant).policy;
    const { log, clock } = this.#context;
    const files = exportedFiles(this.#means, {
      ...runs,
      operatorsKeys: Object.keys(tenantDefaults),
      signal,
      now: () => clock.now(),
      onBug: (error) => log.error({ tenant: name, err: error }, "an export failed"),
    });
    return this.#watched(name, files);
  }

  async *#watched(name: string, files: AsyncIterable<ArchiveFile>): AsyncGenerator<ArchiveFile> {
    try {
      yield* files;
      const message = `${name} was exported, with its keys`;
      await recordEvent(this.#context, { type: "Normal", reason: "Exported", object: `Tenant/${name}`, message });
    } finally {
      this.#underWay.delete(name);
    }
  }
}
