import { storageOf } from "../../model/storage-name.ts";
import { timeText } from "../../model/clock.ts";
import { OWN_SERVER } from "../../model/database-servers.ts";
import { messageOf, StartFailure, UserError } from "../../model/errors.ts";
import type { DatabaseMoveResult, Tenant, TenantStatus } from "../../model/tenant.ts";
import { isMoveDue, ONLINE_COPY_STEPS, type DatabaseMove, type OnlineCopy } from "../../model/database-move.ts";
import { HalfMoved, NotFollowed, type MovedDatabase } from "../../ports/database-moves.ts";
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
  if (!asked || !isMoveDue(asked)) return claimed;
  const { id, to, online } = asked;
  const from = status.databaseServer ?? OWN_SERVER;
  const moved = await attempt(context, claimed, config, asked);
  // Without its copy it is started where it is: copied now, it would be away for as long as that takes.
  if (moved instanceof NotFollowed)
    return noteCopy(context, claimed, asked, { step: "Copying", message: moved.message });
  if (typeof moved === "string") return giveUpMove(context, claimed, asked, moved);
  // From here on it is repeated until it is written down.
  await databases.keep({ ...claimed, status: { ...status, databaseServer: to } }, config.secrets);
  const seconds = Math.round(moved.seconds * 100) / 100;
  const before = online ? ", and copied before that" : "";
  const message = `${moved.rows} rows of ${moved.tables} tables in ${seconds} s${before}`;
  const ending = { id, from, to, finishedAt: timeText(clock.now()) };
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

/** It stays where it is. @param why in words */
export async function giveUpMove(
  context: ControllerContext,
  tenant: Tenant,
  { id, to }: DatabaseMove,
  why: string,
): Promise<Tenant> {
  const from = tenant.status.databaseServer ?? OWN_SERVER;
  const finishedAt = timeText(context.clock.now());
  await tell(context, tenant, "Warning", `the database of ${tenant.metadata.name} stays on ${from}: ${why}`);
  return settle(context, tenant, { id, from, to, finishedAt, outcome: "Failed", message: why }, () => {});
}

/**
 * Writes down how far a copy is that is made while the tenant runs.
 * @param from nothing is written where it is at another step by now @throws UserError NotFound
 */
export async function noteCopy(
  { store, clock }: ControllerContext,
  { metadata: { name } }: Tenant,
  { id }: Pick<DatabaseMove, "id">,
  now: Partial<OnlineCopy> & Pick<OnlineCopy, "step">,
  from: readonly OnlineCopy["step"][] = ONLINE_COPY_STEPS,
): Promise<Tenant> {
  const written = await modify(store, "Tenant", name, ({ status }) => {
    const online = status.databaseMove?.id === id ? status.databaseMove.online : undefined;
    if (!online || !status.databaseMove || !from.includes(online.step)) return false;
    const since = online.step === now.step ? online.since : timeText(clock.now());
    status.databaseMove.online = { attempts: online.attempts, ...now, since };
    return true;
  });
  if (!written) throw new UserError("NotFound", `there is no tenant ${name}`);
  return written;
}

/** @returns why it is not moved, where nothing has changed */
async function attempt(
  { databaseMoves }: ControllerContext,
  tenant: Tenant,
  { secrets }: StartConfig,
  { to, online }: DatabaseMove,
): Promise<MovedDatabase | NotFollowed | string> {
  if (!databaseMoves) return "this platform moves no databases";
  try {
    return await databaseMoves.move(tenant, secrets, { to, epoch: tenant.status.epoch, online: online !== undefined });
  } catch (error) {
    if (error instanceof NotFollowed) return error;
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
