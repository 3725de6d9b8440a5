import type { DatabaseSync } from "node:sqlite";
import type { CertificateRecord } from "../../../model/certificates.ts";
import type { AcmeAccount, CertificateStore, OrderEntry } from "../../../ports/certificates.ts";
import type { Sealing } from "./local-deleted-tenants.ts";

export const CERTIFICATES_SCHEMA = `
  CREATE TABLE IF NOT EXISTS certificates (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS acme_accounts (directory TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS acme_orders (id INTEGER PRIMARY KEY, directory TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL) STRICT;
`;

/** In the store's own file, with what is secret sealed. */
export class LocalCertificates implements CertificateStore {
  readonly #db: DatabaseSync;
  readonly #sealing: Sealing;
  readonly #onChange: () => void;

  /** @param onChange called after a change of which a copy is to be made */
  constructor(db: DatabaseSync, sealing: Sealing, onChange: () => void) {
    this.#db = db;
    this.#sealing = sealing;
    this.#onChange = onChange;
  }

  async list(): Promise<CertificateRecord[]> {
    const rows = this.#db.prepare("SELECT name, body FROM certificates ORDER BY name").all();
    return rows.map(
      ({ name, body }) =>
        JSON.parse(this.#sealing.opened(`certificates/${String(name)}`, String(body))) as CertificateRecord,
    );
  }

  async put(record: CertificateRecord): Promise<void> {
    const body = this.#sealing.sealed(`certificates/${record.name}`, JSON.stringify(record));
    this.#db
      .prepare(
        "INSERT INTO certificates (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
      )
      .run(record.name, body);
  }

  async remove(name: string): Promise<void> {
    this.#db.prepare("DELETE FROM certificates WHERE name = ?").run(name);
  }

  async account(directory: string): Promise<AcmeAccount | undefined> {
    const row = this.#db.prepare("SELECT body FROM acme_accounts WHERE directory = ?").get(directory);
    return row && (JSON.parse(this.#sealing.opened(`acme/${directory}`, String(row["body"]))) as AcmeAccount);
  }

  async putAccount(directory: string, account: AcmeAccount): Promise<void> {
    const body = this.#sealing.sealed(`acme/${directory}`, JSON.stringify(account));
    this.#db
      .prepare(
        "INSERT INTO acme_accounts (directory, body) VALUES (?, ?) ON CONFLICT (directory) DO UPDATE SET body = excluded.body",
      )
      .run(directory, body);
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
