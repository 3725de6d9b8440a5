/**
 * How a tenant falls asleep: as a move stops it on its old shard, with nobody who has it next.
 *
 * | step     | what is done                                                  | failure                                        |
 * | -------- | ------------------------------------------------------------- | ---------------------------------------------- |
 * | –        | its shard says that it may sleep; nothing is written before   | it stays awake, and is asked again later       |
 * | Parking  | gateways hold its requests; its shard says so once more       | it serves again: nothing was stopped           |
 * | Draining | its shard finishes, stops it and releases its database        | retried; a shard that is lost is not waited for |
 *
 * Each step is written to the store before it is carried out, and can be repeated. A wake that comes while gateways park calls it off; one
 * that comes later is carried out as soon as the tenant is asleep.
 */
import { timeText } from "../../model/clock.ts";
import { type Sleep, type SleepReason } from "../../model/sleep.ts";
import { beginWaking } from "../../model/wake.ts";
import { reasonOfRunning, type Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { stopTenant } from "../shards/stop-tenant.ts";
import { lastWordsOf } from "../tenants/last-words.ts";
import { ASK_AGAIN_MS, nextWakeOf, SleepRequests } from "./sleep-requests.ts";

const RETRY_MS = 500;
/** Of keys, Synapse says that they are valid for half a day at least. A tenant may sleep and wake every few minutes. */
const WORDS_KEPT_MS = 3_600_000;

export class Sleeper {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;
  readonly #requests: SleepRequests;

  constructor(context: ControllerContext, shards: ShardReconciler) {
    this.#context = context;
    this.#shards = shards;
    this.#requests = new SleepRequests(context);
  }

  /** Carries it on as far as it goes. @returns milliseconds to wait, where it must */
  async run(tenant: Tenant): Promise<number | void> {
    let current: Tenant | undefined = tenant;
    while (current) {
      const { phase, sleep }: Tenant["status"] = current.status;
      if (phase !== "FallingAsleep" || !sleep) return undefined;
      const next: Tenant | number | undefined = await (sleep.step === "Parking"
        ? this.#park(current, sleep)
        : this.#drain(current, sleep));
      if (typeof next === "number") return next;
      current = next;
    }
    return undefined;
  }

  async #park(tenant: Tenant, sleep: Sleep): Promise<Tenant | undefined> {
    const { feed, claims, clock } = this.#context;
    const { name } = tenant.metadata;
    const { shard = "" } = tenant.status;
    if (tenant.status.wake) return this.#cancel(tenant, sleep, ["it is wanted"]);
    if (tenant.spec.dedicated) return this.#cancel(tenant, sleep, ["it is to be dedicated"]);
    await feed.settled(feed.publish(routeOf(tenant, claims)));
    // What came between the first answer and the park was let through.
    const answer = await this.#requests.idleOn(shard, name).catch(() => undefined);
    const obstacle = answer
      ? this.#requests.obstacleIn(answer, sleep.reason)
      : { reasons: [`shard ${shard} does not answer`], until: clock.now() + ASK_AGAIN_MS };
    if (obstacle) return this.#cancel(tenant, sleep, obstacle.reasons, obstacle.until);
    // Who is suspended in its sleep can no longer be asked. For a stop of seconds nobody is to wait for that.
    const lastWords = sleep.reason === "Renamed" ? undefined : await lastWordsOf(this.#context, tenant, WORDS_KEPT_MS);
    return this.#write(tenant, sleep, (status, present) => {
      // Wanted meanwhile: nothing has been stopped yet.
      if (status.wake) return false;
      if (lastWords) status.lastWords = lastWords;
      Object.assign(present, { step: "Draining", ...nextWakeOf(answer) });
      return true;
    });
  }

  async #drain(tenant: Tenant, sleep: Sleep): Promise<Tenant | number | undefined> {
    const { store, clock, feed, claims, metrics, idle } = this.#context;
    const { name } = tenant.metadata;
    const { shard = "" } = tenant.status;
    const stopped = await stopTenant(this.#context, this.#shards, name, shard);
    // The fence shuts out a shard that is lost when the tenant is woken, and it is told to stop it when it is back.
    if (!stopped) return RETRY_MS;
    const since = timeText(clock.now());
    const asleep = await this.#write(tenant, sleep, (status, present) => {
      for (const key of ["shard", "address", "assignedAt", "retryAt", "pin", "awake"] as const) delete status[key];
      Object.assign(present, { step: "Asleep", since });
      if (stopped.position !== undefined) present.position = stopped.position;
      // What a shard that was not asked since still says of it is of the epoch before.
      status.epoch += 1;
      Object.assign(status, { phase: "Asleep", ...reasonOfRunning(status) });
      if (status.wake) beginWaking(status);
      return true;
    });
    if (!asleep) return undefined;
    idle.forget(name);
    feed.publish(routeOf(asleep, claims));
    await modify(store, "Shard", shard, ({ status }) => void (status.lastSleepOrWake = since));
    await this.#shards.refresh(shard);
    metrics.sleeps.inc({ reason: sleep.reason });
    await this.#say(name, "FellAsleep", asleepText(name, sleep));
    return asleep;
  }

  /** It runs on as before: nothing has been stopped. */
  async #cancel(
    tenant: Tenant,
    sleep: Sleep,
    reasons: string[],
    until = this.#context.clock.now() + ASK_AGAIN_MS,
  ): Promise<Tenant | undefined> {
    const { feed, claims, idle } = this.#context;
    const { name } = tenant.metadata;
    idle.keepAwake(name, until);
    const awake = await this.#write(tenant, sleep, (status) => {
      delete status.sleep;
      delete status.wake;
      Object.assign(status, { phase: "Running", ...reasonOfRunning(status) });
      return true;
    });
    if (awake) feed.publish(routeOf(awake, claims));
    if (awake?.status.phase === "Running")
      await this.#say(name, "StaysAwake", `${name} stays awake: ${reasons.join("; ")}`);
    return awake;
  }

  #write(
    tenant: Tenant,
    { id }: Sleep,
    change: (status: Tenant["status"], sleep: Sleep) => boolean,
  ): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", tenant.metadata.name, ({ status }) =>
      status.sleep?.id === id ? change(status, status.sleep) : false,
    );
  }

  #say(name: string, reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type: "Normal", reason, object: `Tenant/${name}`, message });
  }
}

const WHY: Record<SleepReason, string> = {
  Idle: "nobody uses it",
  Done: "what it was woken for is done",
  PlacesNeeded: "others needed its place",
  Requested: "as requested",
  Renamed: "to get another name",
};

function asleepText(name: string, { reason, nextWake }: Sleep): string {
  const until = nextWake ? `, until ${nextWake.at} at the latest (${nextWake.reason})` : "";
  return `${name} sleeps, ${WHY[reason]}${until}`;
}
