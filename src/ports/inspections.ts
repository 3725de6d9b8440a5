import type { Inspection, InspectionFacts } from "../model/inspection.ts";
import type { CopyFacts } from "./backups.ts";
import type { DatabaseLogin } from "./databases.ts";

/** Databases on our own server with earlier states of tenants, which nothing but people look at. One for each tenant. */
export interface Inspections {
  /**
   * Makes one, in the place of another one of the tenant's. It is not among them before `fill` has ended.
   * @param fill gets a login to the empty database, with a role of its own
   * @returns what it has
   */
  make(about: Omit<Inspection, "database">, fill: (into: DatabaseLogin) => Promise<void>): Promise<CopyFacts>;
  /** By tenant. */
  list(): Promise<Inspection[]>;
  /** @throws UserError NotFound */
  facts(tenant: string): Promise<InspectionFacts>;
  /** The same one until the controller is started again. @throws UserError NotFound */
  login(tenant: string): Promise<DatabaseLogin>;
  /** Nothing happens if there is none. */
  remove(tenant: string): Promise<void>;
  /** Removes what was never complete, and ends logins that an earlier controller has given. Nothing that is being made. */
  clean(): Promise<void>;
}
