import type { DeletedTenant, PurgeProof } from "../model/deleted-tenant.ts";
import { UserError } from "../model/errors.ts";

/** What is to be kept of a tenant is more than there is room for. Nothing has changed; it says what to do. */
export class RecordTooLarge extends UserError {
  constructor(message: string) {
    super("Conflict", message);
    this.name = "RecordTooLarge";
  }
}

/**
 * The deleted tenants of which data is kept, and the proofs of those whose data is gone. What `put`, `remove` and `prove` have answered survives a
 * crash of process and machine.
 */
export interface DeletedTenants {
  /** By name. */
  list(): Promise<DeletedTenant[]>;
  get(name: string): Promise<DeletedTenant | undefined>;
  /** In place of what is there of that name. @throws RecordTooLarge, but not where its purge has begun */
  put(tenant: DeletedTenant): Promise<void>;
  remove(name: string): Promise<void>;
  /** Adds a proof, once for each deletion (`deletionId`). @returns the one that is kept */
  prove(proof: Omit<PurgeProof, "previous" | "sha256">): Promise<PurgeProof>;
  /** Oldest first; the newest ones, if there are more than `limit`. */
  proofs(limit: number): Promise<PurgeProof[]>;
}
