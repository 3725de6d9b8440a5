import { randomUUID } from "node:crypto";
import { timeText } from "../../model/clock.ts";
import { UserError } from "../../model/errors.ts";
import type { Sleep, SleepReason } from "../../model/sleep.ts";
import type { Tenant } from "../../model/tenant.ts";
import { ShardUnreachable, type TenantIdle } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import type { ControllerContext } from "../context.ts";
import { UNUSED_MS } from "./idle-tenants.ts";

/** One that cannot sleep is asked again after this. */
export const ASK_AGAIN_MS = 60_000;
/** Nobody falls asleep for less than this: what is due so soon is waited for. */
const SHORTEST_SLEEP_MS = 60_000;
/** Time for what was due to be done. */
const AFTER_DUE_MS = 20_000;
/** A tenant is woken so much before something is due: about what a start takes on a busy machine. */
const WAKE_AHEAD_MS = 5_000;

/** Why a tenant cannot sleep now, in words, and when it is worth asking again. */
export interface Obstacle {
  reasons: string[];
  until: number;
}

/** Finds out whether tenants may sleep, and begins it. */
export class SleepRequests {
  readonly #context: ControllerContext;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /** Asks the tenant's shard whether it may sleep, and begins it if so. Never fails: one that cannot be asked stays awake. */
  async ask(name: string, shard: string, reason: SleepReason): Promise<void> {
    const { idle, clock, log } = this.#context;
    idle.setAsked(name, true);
    try {
      const answer = await this.idleOn(shard, name);
      const obstacle = answer ? this.obstacleIn(answer, reason) : { reasons: [], until: clock.now() + ASK_AGAIN_MS };
      if (!obstacle) await this.begin(name, shard, reason, answer);
      else {
        idle.keepAwake(name, obstacle.until);
        log.debug({ tenant: name, shard, reasons: obstacle.reasons }, "a tenant that nobody uses stays awake");
      }
    } catch (error) {
      idle.keepAwake(name, clock.now() + ASK_AGAIN_MS);
      log.info({ tenant: name, shard, err: error }, "it cannot be found out whether a tenant may sleep");
    } finally {
      idle.setAsked(name, false);
    }
  }

  /** Somebody asks for it. @throws UserError Conflict that says what keeps it awake; Unavailable */
  async request(tenant: Tenant): Promise<Tenant> {
    const { name } = tenant.metadata;
    const refusal = whyNot(tenant);
    const { shard } = tenant.status;
    if (refusal !== undefined || shard === undefined) throw new UserError("Conflict", refusal ?? "");
    const answer = await this.idleOn(shard, name).catch((error: unknown) => {
      throw new UserError("Unavailable", `shard ${shard} does not say whether ${name} may sleep; try again`, {
        cause: error,
      });
    });
    if (!answer) throw new UserError("Unavailable", `shard ${shard} is of a version that puts no tenant to sleep`);
    const obstacle = this.obstacleIn(answer, "Requested");
    if (obstacle) throw new UserError("Conflict", `${name} cannot sleep now: ${obstacle.reasons.join("; ")}`);
    const begun = await this.begin(name, shard, "Requested", answer);
    if (begun?.status.sleep === undefined)
      throw new UserError("Conflict", `tenant ${name} changed meanwhile; try again`);
    return begun;
  }

  async begin(name: string, shard: string, reason: SleepReason, answer?: TenantIdle): Promise<Tenant | undefined> {
    const { store, clock, feed } = this.#context;
    return modify(store, "Tenant", name, (tenant) => {
      if (whyNot(tenant) !== undefined || tenant.status.shard !== shard) return false;
      // Taken back meanwhile: nobody would wake it.
      if (reason === "Renamed" && !tenant.status.rename) return false;
      feed.takeParkCount(name);
      const requestedAt = timeText(clock.now());
      const sleep: Sleep = { id: randomUUID(), step: "Parking", reason, requestedAt, ...nextWakeOf(answer) };
      Object.assign(tenant.status, { phase: "FallingAsleep", reason: "", message: "", sleep });
      delete tenant.status.wake;
      return true;
    });
  }

  /** @throws ShardRefusal, ShardUnreachable */
  async idleOn(shard: string, name: string): Promise<TenantIdle | undefined> {
    const client = this.#context.shardClients.get(shard);
    if (!client) throw new ShardUnreachable(shard, new Error("it is not there"));
    return client.idle(name);
  }

  /**
   * What is against it now, or undefined. Who asks for it does not wait for requests: those are finished first. What would have to wait for a wake
   * is nothing against a stop of seconds, as in a move.
   */
  obstacleIn({ inFlight, lastUse, keepsAwake, nextDue }: TenantIdle, reason: SleepReason): Obstacle | undefined {
    if (reason === "Renamed") return undefined;
    const now = this.#context.clock.now();
    const reasons = [...keepsAwake];
    let until = now + ASK_AGAIN_MS;
    if (reason !== "Requested") {
      if (inFlight > 0) reasons.push(`${inFlight} of its requests are open`);
      else if (lastUse * 1000 < UNUSED_MS) reasons.push("somebody uses it");
      const left = nextDue ? nextDue.at * 1000 - now : Number.POSITIVE_INFINITY;
      if (nextDue && left < SHORTEST_SLEEP_MS + WAKE_AHEAD_MS) {
        reasons.push(`${nextDue.reason} is due in ${Math.max(0, Math.round(left / 1000))} s`);
        until = now + Math.max(0, left) + AFTER_DUE_MS;
      }
    }
    return reasons.length > 0 ? { reasons, until } : undefined;
  }
}

/** Why a tenant cannot fall asleep, whatever its shard says; or undefined. */
export function whyNot({ metadata, spec, status }: Tenant): string | undefined {
  const { name } = metadata;
  const { phase, move, transition, quarantine, shard } = status;
  if (metadata.deletionTimestamp !== undefined) return `tenant ${name} is being deleted`;
  if (spec.dedicated || transition || status.dedicated) return `tenant ${name} is dedicated, and never sleeps`;
  if (spec.suspended) return `tenant ${name} is suspended`;
  if (move) return `tenant ${name} is being moved, from ${move.from} to ${move.to}`;
  if (quarantine) return `tenant ${name} is quarantined, and stays on its shard until that is lifted`;
  if (phase === "Running" && shard !== undefined) return undefined;
  return `tenant ${name} is ${phase}; only one that runs can fall asleep`;
}

export function nextWakeOf(answer: TenantIdle | undefined): Pick<Sleep, "nextWake"> {
  const due = answer?.nextDue;
  return due ? { nextWake: { at: timeText(due.at * 1000 - WAKE_AHEAD_MS), reason: due.reason } } : {};
}
