import { randomUUID } from "node:crypto";
import { mebibytes } from "../../model/bytes.ts";
import { timeText } from "../../model/clock.ts";
import { OWN_SERVER, type ServerLoad } from "../../model/database-servers.ts";
import { isExchanging, type DatabaseMoveWay, type OnlineCopy } from "../../model/database-move.ts";
import { UserError } from "../../model/errors.ts";
import { storageOf } from "../../model/storage-name.ts";
import { isSuspended, type Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import type { DatabaseMoves } from "../../ports/database-moves.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { bringsDatabase } from "../start/configs.ts";
import type { MoveDatabaseOptions } from "./cluster-service.ts";

/** Copied while its tenant is parked in about the time that a switch takes as well (docs/postgresql.md has what was measured). */
export const LARGEST_PARKED_BYTES = 128 * 1024 ** 2;

/** Copied within about half a minute, for which gateways hold requests: so it is done where it cannot be copied while its tenant runs. */
export const LARGEST_FALLBACK_BYTES = 1024 ** 3;

/** Measured with a gigabyte of events on two busy cores; larger servers are faster. */
const PARKED_BYTES_PER_SECOND = 16 * 1024 ** 2;

/** What people can ask about databases on several servers. */
export class DatabaseMoveService {
  readonly #context: ControllerContext;

  readonly #workFor: (tenant: string) => string | undefined;

  /** @param workFor the long work that is done for a tenant, in a word */
  constructor(context: ControllerContext, workFor: (tenant: string) => string | undefined) {
    this.#context = context;
    this.#workFor = workFor;
  }

  async servers(): Promise<ServerLoad[]> {
    return this.#context.databaseMoves?.servers() ?? [];
  }

  /** Asks for it; does nothing where it is on its way there already. @throws UserError Conflict, InvalidInput, NotFound */
  async ask(present: Tenant, { to, way }: MoveDatabaseOptions): Promise<Tenant> {
    const { store, clock, databaseMoves } = this.#context;
    if (!databaseMoves) throw new UserError("Conflict", "this cluster has no database servers of its own");
    const { name } = present.metadata;
    if (present.status.databaseMove?.to === to) return present;
    const problem = whyNotMoved(present, to);
    if (problem !== undefined) throw new UserError("Conflict", problem);
    await this.#refuseFormer(present);
    await refuseTarget(databaseMoves, to);
    const requestedAt = timeText(clock.now());
    const isOnline = await this.#isOnline(databaseMoves, present, { to, way });
    const online: OnlineCopy = { step: "Waiting", since: requestedAt, attempts: 0 };
    const move = { id: randomUUID(), to, requestedAt, ...(isOnline ? { online } : {}) };
    const job = this.#workFor(name);
    if (job !== undefined)
      throw new UserError("Conflict", `tenant ${name} has a job (${job}) that needs its database; try again after it`);
    const asked = await modify(store, "Tenant", name, (tenant) => {
      const refusal = whyNotMoved(tenant, to);
      if (refusal !== undefined) throw new UserError("Conflict", refusal);
      tenant.status.databaseMove = move;
      delete tenant.status.retryAt;
      return true;
    });
    if (!asked) throw new UserError("NotFound", `there is no tenant ${name}`);
    return asked;
  }

  /** Cancels the move; does nothing if there is none. @throws UserError Conflict, NotFound */
  async cancel(name: string): Promise<Tenant> {
    const { store, clock } = this.#context;
    const written = await modify(store, "Tenant", name, ({ status }) => {
      const { databaseMove: move, databaseServer: from = OWN_SERVER } = status;
      if (!move) return false;
      if (isExchanging(move))
        throw new UserError("Conflict", `the database of ${name} is being moved to ${move.to} at this moment`);
      const { id, to } = move;
      const message = "taken back, as requested";
      status.lastDatabaseMove = { id, from, to, outcome: "Failed", message, finishedAt: timeText(clock.now()) };
      delete status.databaseMove;
      return true;
    });
    if (!written) throw new UserError("NotFound", `there is no tenant ${name}`);
    return written;
  }

  /** @throws UserError Conflict where it was asked for, or is needed, and cannot be */
  async #isOnline(
    moves: DatabaseMoves,
    tenant: Tenant,
    { to, way }: { to: string; way: DatabaseMoveWay | undefined },
  ): Promise<boolean> {
    if (way === "parked") return false;
    const { name } = tenant.metadata;
    const bytes = await moves.bytes(tenant);
    if (way === undefined && bytes <= LARGEST_PARKED_BYTES) return false;
    const secrets = await this.#context.store.readSecret(storageOf(tenant));
    if (!secrets) throw new UserError("NotFound", `there are no keys of ${name}`);
    const why = await moves.whyNotOnline(tenant, secrets, to);
    if (!why || why.isPassing) return true;
    if (way === undefined && bytes <= LARGEST_FALLBACK_BYTES) {
      const message = `the database of ${name} is copied to ${to} while the tenant is parked, as it cannot be while it runs: ${why.words}`;
      await recordEvent(this.#context, { type: "Normal", reason: "DatabaseParked", object: `Tenant/${name}`, message });
      return false;
    }
    throw new UserError(
      "Conflict",
      `the database of ${name} cannot be copied while the tenant runs: ${why.words}. Or have it copied while the tenant is parked (--parked): its ` +
        `${mebibytes(bytes)} take about ${Math.ceil(bytes / PARKED_BYTES_PER_SECOND)} s, in which the tenant does not answer`,
    );
  }

  /** It would stay behind, where nobody finds it. @throws UserError Conflict */
  async #refuseFormer(tenant: Tenant): Promise<void> {
    const { name } = tenant.metadata;
    if (!(await this.#context.restored?.copies.hasFormer(storageOf(tenant)))) return;
    throw new UserError(
      "Conflict",
      `the database that ${name} had before it was restored is kept, and stays behind where this one is moved: remove it (tenant restore ${name} ` +
        "--forget), or take the restore back first (--undo, and then --forget)",
    );
  }
}

/** Why its database stays where it is, or undefined. */
function whyNotMoved({ metadata, spec, status }: Tenant, to: string): string | undefined {
  const { name } = metadata;
  if (metadata.deletionTimestamp !== undefined) return `tenant ${name} is being deleted`;
  if (spec.dedicated || status.transition || status.dedicated)
    return `tenant ${name} is dedicated; take that back first, so that it can be stopped`;
  if (isSuspended({ spec, status }))
    return `tenant ${name} is suspended; resume it, as it is started with the moved database`;
  if (bringsDatabase(spec)) return `tenant ${name} brings its database along, which is its owner's to move`;
  if (!status.provisioned) return `tenant ${name} has no database yet`;
  if (status.restore) return `tenant ${name} is being restored; move its database after that`;
  if (status.rename) return `tenant ${name} is being renamed to ${status.rename.to}; move its database after that`;
  if (status.databaseMove) return `the database of ${name} is on its way to ${status.databaseMove.to} already`;
  if ((status.databaseServer ?? OWN_SERVER) === to) return `the database of ${name} is on ${to} already`;
  return undefined;
}

/** @throws UserError */
async function refuseTarget(moves: DatabaseMoves, to: string): Promise<void> {
  const servers = await moves.servers();
  const target = servers.find((server) => server.name === to);
  if (!target)
    throw new UserError(
      "InvalidInput",
      `there is no database server ${to}; databaseServers has: ${servers.map((server) => server.name).join(", ")}`,
    );
  const { maxDatabases, databases } = target;
  if (maxDatabases !== undefined && databases >= maxDatabases)
    throw new UserError(
      "Conflict",
      `${to} has ${databases} databases, and may have ${maxDatabases}: raise maxDatabases`,
    );
}
