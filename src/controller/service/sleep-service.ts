import { setTimeout as sleep } from "node:timers/promises";
import { timeText } from "../../model/clock.ts";
import { UserError } from "../../model/errors.ts";
import { type WakeReason } from "../../model/sleep.ts";
import { wantAwake } from "../../model/wake.ts";
import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import type { ControllerContext } from "../context.ts";
import { SleepRequests, whyNot } from "../sleep/sleep-requests.ts";
import type { TenantRest } from "./cluster-service.ts";

/** For what needs a tenant awake. */
const AWAKE_WITHIN_MS = 60_000;
const POLL_MS = 50;

/** What people and gateways ask for about sleep: written down here, carried out by the reconcilers. */
export class SleepService {
  readonly #context: ControllerContext;
  readonly #requests: SleepRequests;

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#requests = new SleepRequests(context);
  }

  sleep(tenant: Tenant): Promise<Tenant> {
    const { phase } = tenant.status;
    if (phase === "Asleep" || (phase === "FallingAsleep" && !tenant.status.wake)) return Promise.resolve(tenant);
    return this.#requests.request(tenant);
  }

  /** Wakes those that sleep, or are about to; others are passed over. */
  async wake(wishes: Iterable<{ tenant: string; reason: WakeReason }>): Promise<void> {
    const { reader, store, clock } = this.#context;
    for (const { tenant, reason } of wishes) {
      // From memory: most of what a gateway repeats is on its way already.
      const known = reader.get("Tenant", tenant)?.status;
      // It stays asleep until it has its new name, under which it is asked for again.
      if (known && (known.sleep === undefined || known.wake !== undefined || known.rename !== undefined)) continue;
      await modify(
        store,
        "Tenant",
        tenant,
        ({ metadata, status }) =>
          metadata.deletionTimestamp === undefined &&
          status.rename === undefined &&
          wantAwake(status, reason, clock.now()),
      );
    }
  }

  /** The tenant as soon as it runs, woken if it sleeps. @throws UserError Unavailable that says why it does not run */
  async awake(tenant: Tenant): Promise<Tenant> {
    const { store, clock } = this.#context;
    const { name } = tenant.metadata;
    if (!tenant.status.sleep && !tenant.status.wake) return tenant;
    await this.wake([{ tenant: name, reason: "operator" }]);
    for (const deadline = clock.now() + AWAKE_WITHIN_MS; ; await sleep(POLL_MS)) {
      const now = await store.get("Tenant", name);
      if (!now) throw new UserError("NotFound", `there is no tenant ${name}`);
      const { phase, reason, message } = now.status;
      if (phase === "Running") return now;
      const why = message || reason || phase;
      if (phase === "Failed") throw new UserError("Unavailable", `tenant ${name} sleeps and cannot be woken: ${why}`);
      if (clock.now() > deadline)
        throw new UserError(
          "Timeout",
          `tenant ${name} sleeps, and does not wake within ${AWAKE_WITHIN_MS / 1000} s: ${why}`,
        );
    }
  }

  async rest(tenant: Tenant): Promise<TenantRest> {
    const { idle } = this.#context;
    const { name } = tenant.metadata;
    const { shard, sleep: asleep } = tenant.status;
    if (asleep) return { keepsAwake: [], ...(asleep.nextWake ? { nextWake: asleep.nextWake } : {}) };
    const refusal = whyNot(tenant);
    if (refusal !== undefined || shard === undefined) return { keepsAwake: [refusal ?? ""] };
    const never = tenant.spec.hibernation?.mode === "Never" ? ["spec.hibernation says that it never sleeps"] : [];
    try {
      const answer = await this.#requests.idleOn(shard, name);
      if (!answer) return { keepsAwake: [...never, `shard ${shard} is of a version that puts no tenant to sleep`] };
      const { inFlight, lastUse, nextDue } = answer;
      const obstacle = this.#requests.obstacleIn(answer, "Idle");
      const until = idle.get(name)?.notBefore;
      return {
        keepsAwake: [...never, ...(obstacle?.reasons ?? [])],
        openRequests: inFlight,
        unusedSeconds: lastUse,
        ...(nextDue ? { nextDue: { at: timeText(nextDue.at * 1000), reason: nextDue.reason } } : {}),
        ...(until === undefined ? {} : { askedAgainAt: timeText(until) }),
      };
    } catch {
      return { keepsAwake: [...never, `shard ${shard} does not answer`] };
    }
  }
}
