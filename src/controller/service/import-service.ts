import type { Job } from "../../model/backup.ts";
import type { ImportRequest } from "../../model/import.ts";

/** What the controller offers to those who come. Everything it throws on account of the caller is a `UserError`. */
export interface ImportService {
  /**
   * Makes a tenant of a homeserver that is on the controller's machine, which is left as it is. What becomes of its options is in the job. One that
   * failed or was interrupted is asked for again, and goes on where it was.
   */
  import(tenant: string, request: ImportRequest): Promise<Job>;
}
