import type { Job } from "../../model/backup.ts";
import type { Inspection, InspectionFacts } from "../../model/inspection.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import type { RestoreRequest } from "./backup-service.ts";

export type InspectRequest = Pick<RestoreRequest, "backup" | "at" | "from"> & {
  /** For how long it is kept. */
  hours: number;
};

/** Earlier states of tenants, looked at beside the tenants that run. Everything it throws on account of the caller is a `UserError`. */
export interface InspectionService {
  /** Restores a backup, or a moment, into a database of nobody's; the tenant may be gone. */
  inspect(tenant: string, request: InspectRequest): Promise<Job>;
  inspections(): Promise<Inspection[]>;
  inspection(tenant: string): Promise<InspectionFacts>;
  inspectionLogin(tenant: string): Promise<DatabaseLogin>;
  removeInspection(tenant: string): Promise<void>;
}
