import type { DatabaseSync } from "node:sqlite";
import type { CertificateRecord } from "../../../model/certificates.ts";
import type { AcmeAccount, CertificateStore, OrderEntry } from "../../../ports/certificates.ts";
import { SealedTable, type Sealing } from "./sealed-table.ts";

export const CERTIFICATES_SCHEMA = `
  CREATE TABLE IF NOT EXISTS certificates (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS acme_accounts (directory TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS acme_orders (id INTEGER PRIMARY KEY, directory TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL) STRICT;
`;

/** In the store's own file, with what is secret sealed. */
export class LocalCertificates implements CertificateStore {
  readonly #db: DatabaseSync;
  readonly #certificates: SealedTable<CertificateRecord>;
  readonly #accounts: SealedTable<AcmeAccount>;
  readonly #onChange: () => void;

  /** @param onChange called after a change of which a copy is to be made */
  constructor(db: DatabaseSync, sealing: Sealing, onChange: () => void) {
    this.#db = db;
    this.#certificates = new SealedTable(db, sealing, { table: "certificates", key: "name", place: "certificates" });
    this.#accounts = new SealedTable(db, sealing, { table: "acme_accounts", key: "directory", place: "acme" });
    this.#onChange = onChange;
  }

  async list(): Promise<CertificateRecord[]> {
    return this.#certificates.list();
  }

  async put(record: CertificateRecord): Promise<void> {
    this.#certificates.put(record.name, record);
  }

  async remove(name: string): Promise<void> {
    this.#certificates.remove(name);
  }

  async account(directory: string): Promise<AcmeAccount | undefined> {
    return this.#accounts.get(directory);
  }

  async putAccount(directory: string, account: AcmeAccount): Promise<void> {
    this.#accounts.put(directory, account);
    this.#onChange();
  }

  async orders(directory: string, since: string): Promise<OrderEntry[]> {
    const rows = this.#db
      .prepare("SELECT body FROM acme_orders WHERE directory = ? AND at >= ? ORDER BY at")
      .all(directory, since);
    return rows.map(({ body }) => JSON.parse(String(body)) as OrderEntry);
  }

  async addOrder(directory: string, order: OrderEntry, oldest: string): Promise<void> {
    this.#db
      .prepare("INSERT INTO acme_orders (directory, at, body) VALUES (?, ?, ?)")
      .run(directory, order.at, JSON.stringify(order));
    this.#db.prepare("DELETE FROM acme_orders WHERE at < ?").run(oldest);
  }
}
