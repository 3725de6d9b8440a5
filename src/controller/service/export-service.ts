import type { ArchiveFile } from "../../model/archive.ts";

/** What the controller offers to those who leave. Everything it throws on account of the caller is a `UserError`. */
export interface ExportService {
  /**
   * Everything of a tenant, for a plain Synapse, as it is made: its database as of one moment, its media, keys and configuration. The tenant goes
   * on. The last file is the manifest, or says why there is none. The files have to be read, or the signal to abort.
   */
  export(tenant: string, signal: AbortSignal): Promise<AsyncIterable<ArchiveFile>>;
}
