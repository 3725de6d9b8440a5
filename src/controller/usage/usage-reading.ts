import { messageOf } from "../../model/errors.ts";
import { beginOf, monthOf, type UsagePosition } from "../../model/usage-month.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { ControllerContext } from "../context.ts";
import { asItRuns } from "../start/configs.ts";
import { Rounds } from "./rounds.ts";
import { ownerOf } from "./usage-recorder.ts";

const TURN_EVERY_MS = 15_000;
/** One after the other: 40 connections a minute altogether. */
const MOST_AT_ONCE = 10;
const READ_EVERY_MS = 3_600_000;
/** Events get their place before they are written: those of the last minutes are counted the next time. */
const SETTLED_AFTER_MS = 120_000;
/** Visits of a day are noted up to this long after it has ended. */
const VISITS_LATE_MS = 86_400_000;

/** Asks tenants' own databases, with their own logins, what only these know: a few at a time, and only those that were used since. */
export class UsageReadingLoop {
  readonly #context: ControllerContext;
  readonly #rounds: Rounds;
  /** Also those that could not be asked. */
  readonly #askedAt = new Map<string, number>();

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#rounds = new Rounds(context.clock, TURN_EVERY_MS, () => this.turn());
  }

  start(): void {
    if (this.#context.recorder) this.#rounds.start();
  }

  /** Waits for the one that is being asked. */
  close(): Promise<void> {
    return this.#rounds.close();
  }

  async turn(): Promise<void> {
    const { reader, recorder, clock, log } = this.#context;
    if (!recorder) return;
    try {
      const due = new Map<string, Tenant>();
      for (const { tenant } of await recorder.unread()) {
        const found = reader.get("Tenant", tenant);
        if (!found || !isAtRest(found)) continue;
        const { readAt } = (await recorder.positionOf(ownerOf(found))) ?? {};
        const asked = Math.max(this.#askedAt.get(tenant) ?? 0, readAt === undefined ? 0 : clock.past(readAt));
        if (clock.now() - asked >= READ_EVERY_MS) due.set(tenant, found);
      }
      const isOpen = await this.#rounds.forFew([...due.keys()], MOST_AT_ONCE, async (name) => {
        this.#askedAt.set(name, clock.now());
        const tenant = due.get(name)!;
        await readUsage(this.#context, tenant, { isStopped: tenant.status.shard === undefined });
      });
      if (!isOpen) return;
      for (const name of this.#askedAt.keys()) if (!reader.get("Tenant", name)) this.#askedAt.delete(name);
    } catch (error) {
      log.warn({ why: messageOf(error) }, "cannot ask tenants' databases for their usage; tried again later");
    }
  }
}

/** Asks one tenant's database. Never rejects, and wakes nobody. */
export async function readUsage(
  context: ControllerContext,
  tenant: Tenant,
  { isStopped }: { isStopped: boolean },
): Promise<void> {
  const { recorder, databases, clock, log } = context;
  if (!recorder || !tenant.status.provisioned) return;
  const owner = ownerOf(tenant);
  try {
    const runs = await asItRuns(context, tenant);
    if (!runs) return;
    const now = clock.now();
    const position: Partial<UsagePosition> = (await recorder.positionOf(owner)) ?? {};
    const { readAt, usedAt, messagesTo } = position;
    const last = readAt ?? usedAt;
    const since = (last === undefined ? now : clock.past(last)) - VISITS_LATE_MS;
    const reading = await databases.readUsage(runs.tenant, runs.secrets, {
      months: [...new Set([monthOf(Math.max(since, beginOf(monthOf(now)) - VISITS_LATE_MS)), monthOf(now)])],
      messagesFrom: messagesTo,
      receivedBefore: isStopped ? now + SETTLED_AFTER_MS : now - SETTLED_AFTER_MS,
    });
    await recorder.read(owner, reading, isStopped ? now : now - SETTLED_AFTER_MS);
  } catch (error) {
    log.debug({ tenant: tenant.metadata.name, why: messageOf(error) }, "its database does not tell its usage");
  }
}

function isAtRest({ metadata, status }: Tenant): boolean {
  const isSettled = status.move === undefined && status.transition === undefined;
  const isStill = status.phase === "Running" || status.phase === "Asleep" || status.phase === "Suspended";
  return metadata.deletionTimestamp === undefined && isSettled && isStill;
}
