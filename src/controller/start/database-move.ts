import { storageOf } from "../../model/storage-name.ts";
import { timeText } from "../../model/clock.ts";
import { OWN_SERVER } from "../../model/database-servers.ts";
import { messageOf, StartFailure, UserError } from "../../model/errors.ts";
import type { DatabaseMoveResult, Tenant, TenantStatus } from "../../model/tenant.ts";
import { HalfMoved, type MovedDatabase } from "../../ports/database-moves.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { StartConfig } from "./configs.ts";

const DAY_MS = 86_400_000;
/** Where deleted tenants have no date. */
const KEPT_DAYS = 30;

/**
 * Moves the tenant's database to the server that was asked for, while nobody runs it. Where that does not succeed, it goes on with the one it has.
 * @param claimed the tenant with an epoch that is handed out for this @returns it as it is to be started
 * @throws HalfMoved and what else leaves it to be repeated
 */
export async function takeMoved(context: ControllerContext, claimed: Tenant, config: StartConfig): Promise<Tenant> {
  const { databases, clock, deletions, restored } = context;
  const { metadata, status } = claimed;
  const asked = status.databaseMove;
  if (!asked) return claimed;
  const { id, to } = asked;
  const from = status.databaseServer ?? OWN_SERVER;
  const ending = { id, from, to, finishedAt: timeText(clock.now()) };
  const moved = await attempt(context, claimed, config, to);
  if (typeof moved === "string") {
    await tell(context, claimed, "Warning", `the database of ${metadata.name} stays on ${from}: ${moved}`);
    return settle(context, claimed, { ...ending, outcome: "Failed", message: moved }, () => {});
  }
  // From here on it is repeated until it is written down.
  await databases.keep({ ...claimed, status: { ...status, databaseServer: to } }, config.secrets);
  const seconds = Math.round(moved.seconds * 100) / 100;
  const message = `${moved.rows} rows of ${moved.tables} tables in ${seconds} s`;
  const keptUntil = timeText(clock.now() + (deletions?.keepDays ?? KEPT_DAYS) * DAY_MS);
  const written = await settle(context, claimed, { ...ending, outcome: "Succeeded", message, seconds }, (now) => {
    now.databaseServer = to;
    const others = (now.formerDatabases ?? []).filter(({ server }) => server !== from && server !== to);
    now.formerDatabases = [...others, { server: from, keptUntil }];
  });
  await restored?.copies.settle(storageOf(claimed));
  const words = `the database of ${metadata.name} was moved from ${from} to ${to} (${message}); the former one is kept until ${keptUntil}`;
  await tell(context, claimed, "Normal", words);
  return written;
}

/** @returns why it is not moved, where nothing has changed */
async function attempt(
  { databaseMoves }: ControllerContext,
  tenant: Tenant,
  { secrets }: StartConfig,
  to: string,
): Promise<MovedDatabase | string> {
  if (!databaseMoves) return "this platform moves no databases";
  try {
    return await databaseMoves.move(tenant, secrets, { to, epoch: tenant.status.epoch });
  } catch (error) {
    if (error instanceof HalfMoved || !(error instanceof UserError || error instanceof StartFailure)) throw error;
    return messageOf(error);
  }
}

async function settle(
  { store }: ControllerContext,
  { metadata: { name } }: Tenant,
  result: DatabaseMoveResult,
  change: (status: TenantStatus) => void,
): Promise<Tenant> {
  const written = await modify(store, "Tenant", name, ({ status }) => {
    if (status.databaseMove?.id !== result.id) return false;
    delete status.databaseMove;
    status.lastDatabaseMove = result;
    change(status);
    return true;
  });
  if (!written) throw new UserError("NotFound", `there is no tenant ${name}`);
  return written;
}

function tell(context: ControllerContext, { metadata }: Tenant, type: "Normal" | "Warning", message: string) {
  const reason = type === "Normal" ? "DatabaseMoved" : "DatabaseNotMoved";
  return recordEvent(context, { type, reason, object: `Tenant/${metadata.name}`, message });
}
