import type { DatabaseSync } from "node:sqlite";
import { deletionId, proofAfter, type DeletedTenant, type PurgeProof } from "../../../model/deleted-tenant.ts";
import type { DeletedTenants } from "../../../ports/deleted-tenants.ts";
import { SealedTable, type Sealing } from "./sealed-table.ts";

/** Proofs are small, and never removed: they are what is left. */
export const DELETED_SCHEMA = `
  CREATE TABLE IF NOT EXISTS deleted_tenants (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS purges (id INTEGER PRIMARY KEY, deletion TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
`;

/** In the store's own file: what is written together is lost or kept together. */
export class LocalDeletedTenants implements DeletedTenants {
  readonly #db: DatabaseSync;
  /** Their configurations may hold passwords. */
  readonly #tenants: SealedTable<DeletedTenant>;
  readonly #onChange: () => void;

  /** @param onChange called after each change, of which a copy is to be made */
  constructor(db: DatabaseSync, sealing: Sealing, onChange: () => void) {
    this.#db = db;
    this.#tenants = new SealedTable(db, sealing, { table: "deleted_tenants", key: "name", place: "deleted" });
    this.#onChange = onChange;
  }

  async list(): Promise<DeletedTenant[]> {
    return this.#tenants.list();
  }

  async get(name: string): Promise<DeletedTenant | undefined> {
    return this.#tenants.get(name);
  }

  async put(tenant: DeletedTenant): Promise<void> {
    this.#tenants.put(tenant.name, tenant);
    this.#onChange();
  }

  async remove(name: string): Promise<void> {
    this.#tenants.remove(name);
    this.#onChange();
  }

  async prove(given: Omit<PurgeProof, "previous" | "sha256">): Promise<PurgeProof> {
    const deletion = deletionId(given);
    const known = this.#db.prepare("SELECT body FROM purges WHERE deletion = ?").get(deletion);
    if (known) return JSON.parse(String(known["body"])) as PurgeProof;
    const last = this.#db.prepare("SELECT body FROM purges ORDER BY id DESC LIMIT 1").get();
    const proof = proofAfter(last ? (JSON.parse(String(last["body"])) as PurgeProof).sha256 : "", given);
    this.#db.prepare("INSERT INTO purges (deletion, body) VALUES (?, ?)").run(deletion, JSON.stringify(proof));
    this.#onChange();
    return proof;
  }

  async proofs(limit: number): Promise<PurgeProof[]> {
    const rows = this.#db.prepare("SELECT body FROM purges ORDER BY id DESC LIMIT ?").all(limit);
    return rows.map(({ body }) => JSON.parse(String(body)) as PurgeProof).toReversed();
  }
}
