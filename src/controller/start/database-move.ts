import { storageOf } from "../../model/storage-name.ts";
import { timeText } from "../../model/clock.ts";
import { OWN_SERVER } from "../../model/database-servers.ts";
import { messageOf, StartFailure, UserError } from "../../model/errors.ts";
import type { DatabaseMoveResult, Tenant, TenantStatus } from "../../model/tenant.ts";
import {
  isExchanging,
  isMoveDue,
  ONLINE_COPY_STEPS,
  type DatabaseMove,
  type OnlineCopy,
} from "../../model/database-move.ts";
import { HalfMoved, NotFollowed, type MovedDatabase } from "../../ports/database-moves.ts";
import { DatabaseTrouble } from "../../ports/databases.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { StartConfig } from "./configs.ts";

const DAY_MS = 86_400_000;
const NOT_TAKEN = ["Waiting", "Copying", "Following", "Switching"] as const;
const BEFORE_EXCHANGE = ["Switching", "Exchanging"] as const;
/** Where deleted tenants have no date. */
const KEPT_DAYS = 30;
/** Of a reason in a record. */
const MOST_CHARACTERS = 1_000;

/**
 * Moves the tenant's database to the server that was asked for, while nobody runs it. Where that does not succeed, it goes on with the one it has.
 * @param started the tenant with an epoch that is handed out for this @returns it as it is to be started
 * @throws HalfMoved and what else leaves it to be repeated
 */
export async function takeMoved(context: ControllerContext, started: Tenant, config: StartConfig): Promise<Tenant> {
  const { databases, clock, deletions, restored } = context;
  const due = started.status.databaseMove;
  if (!due || !isMoveDue(due)) return started;
  // Until this is written it can be taken back; from then on it is where the end of the move says.
  const claimed = due.online ? await noteCopy(context, started, due, { step: "Exchanging" }, BEFORE_EXCHANGE) : started;
  const { metadata, status } = claimed;
  const asked = status.databaseMove;
  if (asked?.id !== due.id || !isExchanging(asked)) return claimed;
  const { id, to, online } = asked;
  const from = status.databaseServer ?? OWN_SERVER;
  const moved = await attempt(context, claimed, config, asked);
  // Without its copy it is started where it is: copied now, it would be away for as long as that takes.
  if (moved instanceof NotFollowed)
    return noteCopy(context, claimed, asked, { step: "Waiting", message: `begun again: ${moved.message}` });
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

/** A copy is given up; nothing is done once a start has taken it, which is what settles it then. @param why in words */
export async function giveUpCopy(context: ControllerContext, tenant: Tenant, move: DatabaseMove, why: string) {
  // Without its copy, a start that comes now settles it as well.
  const { status } = await noteCopy(context, tenant, move, { step: "Waiting", message: why }, NOT_TAKEN);
  const now = status.databaseMove;
  if (now?.id === move.id && !isExchanging(now)) await giveUpMove(context, tenant, move, why);
}

/** It stays where it is. @param why in words */
async function giveUpMove(
  context: ControllerContext,
  tenant: Tenant,
  { id, to }: DatabaseMove,
  why: string,
): Promise<Tenant> {
  const from = tenant.status.databaseServer ?? OWN_SERVER;
  const finishedAt = timeText(context.clock.now());
  await tell(context, tenant, "Warning", `the database of ${tenant.metadata.name} stays on ${from}: ${why}`);
  return settle(
    context,
    tenant,
    { id, from, to, finishedAt, outcome: "Failed", message: why.slice(0, MOST_CHARACTERS) },
    () => {},
  );
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
    const message = now.message === undefined ? {} : { message: now.message.slice(0, MOST_CHARACTERS) };
    status.databaseMove.online = { attempts: online.attempts, ...now, ...message, since };
    return true;
  });
  if (!written) throw new UserError("NotFound", `there is no tenant ${name}`);
  return written;
}

/**
 * Ends the copy that follows a tenant's database. What it has left where a server is away keeps nobody from going on: it is looked for until it is gone
 * (`OnlineCopies`).
 * @returns whether nothing of it is left
 */
export async function leaveCopy({ databaseMoves, log }: ControllerContext, storage: string): Promise<boolean> {
  try {
    await databaseMoves?.leave(storage);
    return true;
  } catch (error) {
    log.warn({ storage, why: messageOf(error) }, "what a copy needed in the database cannot be removed yet");
    return false;
  }
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
    // A copy that is followed is begun again, a limited number of times: what was in its way may be over.
    if (online && isPassing(error)) return new NotFollowed(messageOf(error), { cause: error });
    return messageOf(error);
  }
}

/** A server that was away, tables that were changed: not a full disk, which the next copy would fill again. */
export function isPassing(error: unknown): boolean {
  if (error instanceof StartFailure) return false;
  if (error instanceof DatabaseTrouble) return error.reason !== "DatabaseFull";
  return error instanceof UserError && (error.code === "Unavailable" || error.code === "Timeout");
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
