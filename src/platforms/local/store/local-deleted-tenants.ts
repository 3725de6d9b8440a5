import { createHash } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { deletionId, type DeletedTenant, type PurgeProof } from "../../../model/deleted-tenant.ts";
import type { DeletedTenants } from "../../../ports/deleted-tenants.ts";

/** Proofs are small, and never removed: they are what is left. */
export const DELETED_SCHEMA = `
  CREATE TABLE IF NOT EXISTS deleted_tenants (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS purges (id INTEGER PRIMARY KEY, deletion TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
`;

export interface Sealing {
  sealed(place: string, text: string): string;
  opened(place: string, text: string): string;
}

/** In the store's own file: what is written together is lost or kept together. */
export class LocalDeletedTenants implements DeletedTenants {
  readonly #db: DatabaseSync;
  readonly #sealing: Sealing;
  readonly #onChange: () => void;

  /** @param onChange called after each change, of which a copy is to be made */
  constructor(db: DatabaseSync, sealing: Sealing, onChange: () => void) {
    this.#db = db;
    this.#sealing = sealing;
    this.#onChange = onChange;
  }

  async list(): Promise<DeletedTenant[]> {
    const rows = this.#db.prepare("SELECT name, body FROM deleted_tenants ORDER BY name").all();
    return rows.map(({ name, body }) => this.#read(String(name), String(body)));
  }

  async get(name: string): Promise<DeletedTenant | undefined> {
    const row = this.#db.prepare("SELECT body FROM deleted_tenants WHERE name = ?").get(name);
    return row && this.#read(name, String(row["body"]));
  }

  async put(tenant: DeletedTenant): Promise<void> {
    // Its configuration may hold passwords.
    const body = this.#sealing.sealed(`deleted/${tenant.name}`, JSON.stringify(tenant));
    this.#db
      .prepare(
        "INSERT INTO deleted_tenants (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
      )
      .run(tenant.name, body);
    this.#onChange();
  }

  async remove(name: string): Promise<void> {
    this.#db.prepare("DELETE FROM deleted_tenants WHERE name = ?").run(name);
    this.#onChange();
  }

  async prove(given: Omit<PurgeProof, "previous" | "sha256">): Promise<PurgeProof> {
    const deletion = deletionId(given);
    const known = this.#db.prepare("SELECT body FROM purges WHERE deletion = ?").get(deletion);
    if (known) return JSON.parse(String(known["body"])) as PurgeProof;
    const last = this.#db.prepare("SELECT body FROM purges ORDER BY id DESC LIMIT 1").get();
    const { name, serverName, createdAt, deletedAt, purgedAt, reason, removed } = given;
    const previous = last ? (JSON.parse(String(last["body"])) as PurgeProof).sha256 : "";
    const content = { name, serverName, createdAt, deletedAt, purgedAt, reason, removed, previous };
    const proof = { ...content, sha256: createHash("sha256").update(JSON.stringify(content)).digest("hex") };
    this.#db.prepare("INSERT INTO purges (deletion, body) VALUES (?, ?)").run(deletion, JSON.stringify(proof));
    this.#onChange();
    return proof;
  }

  async proofs(limit: number): Promise<PurgeProof[]> {
    const rows = this.#db.prepare("SELECT body FROM purges ORDER BY id DESC LIMIT ?").all(limit);
    return rows.map(({ body }) => JSON.parse(String(body)) as PurgeProof).toReversed();
  }

  #read(name: string, body: string): DeletedTenant {
    return JSON.parse(this.#sealing.opened(`deleted/${name}`, body)) as DeletedTenant;
  }
}
