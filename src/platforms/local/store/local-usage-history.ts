import type { DatabaseSync } from "node:sqlite";
import type { UsageMonth, UsageOwner, UsagePosition } from "../../../model/usage-month.ts";
import type { UsageEntry, UsageHistory } from "../../../ports/usage-history.ts";
import { atOnce } from "./at-once.ts";

export const USAGE_SCHEMA = `
  CREATE TABLE IF NOT EXISTS usage_months (
    tenant TEXT NOT NULL, server_name TEXT NOT NULL, month TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (tenant, server_name, month)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS usage_positions (
    tenant TEXT NOT NULL, server_name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, server_name)) STRICT, WITHOUT ROWID;
`;

/** In the store's own file. No copy of it is made for these alone: they change all the time. */
export class LocalUsageHistory implements UsageHistory {
  readonly #db: DatabaseSync;

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  async list(tenant?: string): Promise<UsageMonth[]> {
    const rows =
      tenant === undefined
        ? this.#db.prepare("SELECT body FROM usage_months ORDER BY tenant, month, server_name").all()
        : this.#db.prepare("SELECT body FROM usage_months WHERE tenant = ? ORDER BY month, server_name").all(tenant);
    return rows.map(({ body }) => JSON.parse(String(body)) as UsageMonth);
  }

  async around(month: string): Promise<UsageMonth[]> {
    const one = (which: string) => `
      SELECT m.body FROM usage_positions p JOIN usage_months m
        ON m.tenant = p.tenant AND m.server_name = p.server_name AND m.month =
          (SELECT ${which} FROM usage_months n WHERE n.tenant = p.tenant AND n.server_name = p.server_name AND n.month`;
    const rows = this.#db
      .prepare(`${one("max(n.month)")} <= ?) UNION ALL ${one("min(n.month)")} > ?)`)
      .all(month, month);
    return rows.map(({ body }) => JSON.parse(String(body)) as UsageMonth);
  }

  async position({ tenant, serverName }: UsageOwner): Promise<UsagePosition | undefined> {
    const row = this.#db
      .prepare("SELECT body FROM usage_positions WHERE tenant = ? AND server_name = ?")
      .get(tenant, serverName);
    return row && (JSON.parse(String(row["body"])) as UsagePosition);
  }

  async owners(): Promise<UsageOwner[]> {
    return this.#owners("SELECT tenant, server_name FROM usage_positions ORDER BY tenant, server_name");
  }

  async unread(): Promise<UsageOwner[]> {
    return this.#owners(
      `SELECT tenant, server_name FROM usage_positions
         WHERE coalesce(json_extract(body, '$.usedAt') > json_extract(body, '$.readAt'),
                        json_extract(body, '$.readAt') IS NULL) ORDER BY tenant, server_name`,
    );
  }

  #owners(sql: string): UsageOwner[] {
    return this.#db
      .prepare(sql)
      .all()
      .map((row) => ({ tenant: String(row["tenant"]), serverName: String(row["server_name"]) }));
  }

  async write(entries: readonly UsageEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const month = this.#db.prepare(
      "INSERT INTO usage_months (tenant, server_name, month, body) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
    );
    const place = this.#db.prepare(
      "INSERT INTO usage_positions (tenant, server_name, body) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
    );
    atOnce(this.#db, () => {
      for (const { position, months } of entries) {
        for (const row of months) month.run(row.tenant, row.serverName, row.month, JSON.stringify(row));
        place.run(position.tenant, position.serverName, JSON.stringify(position));
      }
    });
  }

  async prune(oldest: string, isThere: (owner: UsageOwner) => boolean): Promise<void> {
    const old = this.#db
      .prepare(
        `SELECT o.tenant, o.server_name, o.month,
                EXISTS (SELECT 1 FROM usage_months n
                        WHERE n.tenant = o.tenant AND n.server_name = o.server_name AND n.month > o.month) AS newer
         FROM usage_months o WHERE o.month < ?`,
      )
      .all(oldest);
    const gone = old.filter(
      ({ tenant, server_name, newer }) =>
        newer === 1 || !isThere({ tenant: String(tenant), serverName: String(server_name) }),
    );
    if (gone.length === 0) return;
    const remove = this.#db.prepare("DELETE FROM usage_months WHERE tenant = ? AND server_name = ? AND month = ?");
    atOnce(this.#db, () => {
      for (const row of gone) remove.run(String(row["tenant"]), String(row["server_name"]), String(row["month"]));
      this.#db.exec(
        `DELETE FROM usage_positions WHERE NOT EXISTS (
           SELECT 1 FROM usage_months m
           WHERE m.tenant = usage_positions.tenant AND m.server_name = usage_positions.server_name)`,
      );
    });
  }
}

/**
 * What was counted of a tenant is counted on under its new name. Months that an earlier tenant of that name and server name has stay as they are; so
 * does what was counted under the former name then.
 */
export function renameUsage(db: DatabaseSync, { tenant, serverName }: UsageOwner, to: string): void {
  for (const [table, otherwise] of [
    ["usage_months", "IGNORE"],
    ["usage_positions", "REPLACE"],
  ] as const)
    db.prepare(
      `UPDATE OR ${otherwise} ${table} SET tenant = ?, body = json_set(body, '$.tenant', ?) WHERE tenant = ? AND server_name = ?`,
    ).run(to, to, tenant, serverName);
}
