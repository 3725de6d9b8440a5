import { randomBytes } from "node:crypto";
import type pg from "pg";
import { timeText } from "../model/clock.ts";
import { UserError } from "../model/errors.ts";
import type { Inspection, InspectionFacts } from "../model/inspection.ts";
import type { CopyFacts } from "../ports/backups.ts";
import type { DatabaseLogin } from "../ports/databases.ts";
import type { Inspections } from "../ports/inspections.ts";
import { asAdmin, DEFAULT_BOUNDS, identifier, literal, withConnection, type AdminLogin } from "./connection.ts";
import { createEmpty, dropWithRole, factsOf, loginOn, SNAPSHOT_BOUNDS } from "./copies.ts";
import { forgetInspection, knownInspections, noteInspection } from "./inspection-table.ts";
import { INSPECTION_PATTERN, inspectionName } from "./names.ts";
import { endConnections, ensureRole } from "./roles.ts";
import { scramVerifier } from "./scram.ts";

const USERS = `
  SELECT u.name, u.admin = 1 AS admin, u.deactivated = 1 AS deactivated, max(i.last_seen)::text AS seen
  FROM users u LEFT JOIN user_ips i ON i.user_id = u.name
  GROUP BY u.name, u.admin, u.deactivated ORDER BY max(i.last_seen) DESC NULLS LAST, u.name LIMIT 100`;
const EVENTS = `
  SELECT origin_server_ts::text AS at, type, sender, room_id AS room FROM events ORDER BY stream_ordering DESC LIMIT 20`;

export class PostgresInspections implements Inspections {
  readonly #server: AdminLogin;
  /** Of their roles, by name. PostgreSQL has only verifiers of them. */
  readonly #passwords = new Map<string, Promise<string>>();
  readonly #making = new Set<string>();

  constructor(server: AdminLogin) {
    this.#server = server;
  }

  async make(about: Omit<Inspection, "database">, fill: (into: DatabaseLogin) => Promise<void>): Promise<CopyFacts> {
    const name = inspectionName(about.tenant);
    this.#making.add(name);
    try {
      await this.remove(about.tenant);
      await this.#asAdmin(async (client) => {
        await ensureRole(client, name);
        await createEmpty(client, name, name);
      });
      const login = await this.#loginTo(name);
      await fill(login);
      const facts = await withConnection(login, name, factsOf, SNAPSHOT_BOUNDS);
      await this.#asAdmin((client) => noteInspection(client, { ...about, database: name }));
      return facts;
    } catch (error) {
      await this.remove(about.tenant);
      throw error;
    } finally {
      this.#making.delete(name);
    }
  }

  async list(): Promise<Inspection[]> {
    const all = await this.#all();
    return [...all.values()].filter((each) => each !== undefined).toSorted((a, b) => (a.tenant < b.tenant ? -1 : 1));
  }

  async facts(tenant: string): Promise<InspectionFacts> {
    const inspection = await this.#find(tenant);
    return withConnection(await this.#loginTo(inspection.database), inspection.database, async (client) => {
      const { counts } = await factsOf(client);
      const users = await client.query<{ name: string; admin: boolean; deactivated: boolean; seen: string | null }>(
        USERS,
      );
      const events = await client.query<{ at: string; type: string; sender: string; room: string }>(EVENTS);
      return {
        inspection,
        counts,
        users: users.rows.map(({ seen, ...user }) => ({
          ...user,
          ...(seen === null ? {} : { lastSeenAt: timeText(Number(seen)) }),
        })),
        lastEvents: events.rows.map(({ at, ...event }) => ({ ...event, at: timeText(Number(at)) })),
      };
    });
  }

  async login(tenant: string): Promise<DatabaseLogin> {
    const { database } = await this.#find(tenant);
    return this.#loginTo(database);
  }

  async remove(tenant: string): Promise<void> {
    await this.#asAdmin((client) => forgetInspection(client, tenant));
    await this.#drop(inspectionName(tenant));
  }

  async clean(): Promise<void> {
    for (const [name, about] of await this.#all()) {
      if (this.#making.has(name)) continue;
      if (!about) await this.#drop(name);
      else if (!this.#passwords.has(name))
        await this.#asAdmin(async (client) => {
          await client.query(`ALTER ROLE ${identifier(name)} WITH NOLOGIN PASSWORD NULL`);
          await endConnections(client, name);
        });
    }
  }

  async #drop(name: string): Promise<void> {
    this.#passwords.delete(name);
    await dropWithRole(this.#server, name);
  }

  async #find(tenant: string): Promise<Inspection> {
    const found = (await this.#all()).get(inspectionName(tenant));
    if (found) return found;
    throw new UserError(
      "NotFound",
      `no earlier state of ${tenant} is there to be looked at: make it with tenant inspect`,
    );
  }

  /** By database; undefined for those that are not complete. */
  async #all(): Promise<Map<string, Inspection | undefined>> {
    return this.#asAdmin(async (client) => {
      const { rows } = await client.query<{ name: string }>(
        "SELECT datname AS name FROM pg_database WHERE datname ~ $1",
        [INSPECTION_PATTERN],
      );
      const known = new Map((await knownInspections(client)).map((about) => [about.database, about]));
      return new Map(rows.map(({ name }) => [name, known.get(name)]));
    });
  }

  async #loginTo(name: string): Promise<DatabaseLogin> {
    const known = this.#passwords.get(name) ?? this.#newPassword(name);
    // At once: who asks for it meanwhile gets the same one, and it is not taken for one of an earlier controller.
    this.#passwords.set(name, known);
    const password = await known.catch((error: unknown) => {
      this.#passwords.delete(name);
      throw error;
    });
    return { ...loginOn(this.#server, name, password), database: name };
  }

  async #newPassword(name: string): Promise<string> {
    const password = randomBytes(32).toString("base64url");
    const verifier = literal(scramVerifier(password));
    await this.#asAdmin((client) => client.query(`ALTER ROLE ${identifier(name)} WITH LOGIN PASSWORD ${verifier}`));
    return password;
  }

  #asAdmin<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    return asAdmin(this.#server, DEFAULT_BOUNDS, work);
  }
}
