import type { Route, WakeCause, WakeRequest } from "../../model/routes.ts";
import type { RouteChange } from "../route-table.ts";
import { HeldPolls } from "./held-polls.ts";
import { KnownAnswers } from "./known-answers.ts";
import { PollMemory } from "./poll-memory.ts";
import { OwnPaths } from "./served-paths.ts";
import { Wakes } from "./wakes.ts";

/** How often what nobody asks for any more is dropped. */
const SWEEP_MS = 60_000;

/** Whether a tenant sleeps, or is on its way there or back: what can be done without it is done without it. */
export function isResting({ state, reason }: Route): boolean {
  return state === "asleep" || (state === "parked" && (reason === "FallingAsleep" || reason === "Waking"));
}

/** Whether a request that waits for this tenant has to ask for a wake (docs/route-feed.md). */
export function wantsWake({ state, reason }: Route): boolean {
  return state === "asleep" || (state === "parked" && reason === "FallingAsleep");
}

export interface SleepersOptions {
  limits: { maxHeldPolls: number; maxRememberedBytes: number };
  routeOf(tenant: string): Route | undefined;
  /** Requests that wait for the tenant. */
  waiting(tenant: string): number;
  askForWakes(tenants: WakeRequest["tenants"]): Promise<void>;
  onAsked(why: WakeCause): void;
  onProblem(error: unknown, tenants: number): void;
  wakeAgainMs?: number;
}

/** What a gateway knows and holds for tenants that sleep. */
export class Sleepers {
  readonly polls: PollMemory;
  readonly held: HeldPolls;
  readonly answers: KnownAnswers;
  readonly own = new OwnPaths();
  readonly wakes: Wakes;
  readonly routeOf: (tenant: string) => Route | undefined;
  readonly #sweep: NodeJS.Timeout;

  constructor({ limits, routeOf, waiting, askForWakes, onAsked, onProblem, wakeAgainMs }: SleepersOptions) {
    this.routeOf = routeOf;
    this.polls = new PollMemory(limits);
    this.held = new HeldPolls(limits);
    this.answers = new KnownAnswers(limits);
    this.wakes = new Wakes({
      send: askForWakes,
      isWanted: (tenant) => {
        const route = routeOf(tenant);
        return route !== undefined && wantsWake(route) && waiting(tenant) > 0;
      },
      onAsked,
      onProblem,
      againMs: wakeAgainMs,
    });
    this.#sweep = setInterval(
      () => this.polls.sweep(performance.now(), (tenant) => routeOf(tenant)?.state === "serving"),
      SWEEP_MS,
    ).unref();
  }

  get rememberedBytes(): number {
    return this.polls.bytes + this.answers.bytes;
  }

  /** What was learned of a tenant holds under its new name. To be called before requests that wait look at the new route. */
  rename(former: string, to: string): void {
    this.answers.rename(former, to);
    this.polls.rename(former, to);
    this.own.rename(former, to);
  }

  /** To be called when requests that wait have looked at the new route. */
  follow({ tenant, after }: RouteChange): void {
    if (!after || !wantsWake(after)) this.wakes.settled(tenant);
    if (!after || after.state === "unavailable") this.polls.forget(tenant);
    else if (after.state === "serving") this.polls.serves(tenant, after.epoch);
    // It moves, or takes up another configuration: what it says of itself may be different afterwards.
    else if (!isResting(after)) this.answers.forget(tenant);
    this.held.resume(tenant);
    if (after) return;
    this.answers.forget(tenant);
    this.own.forget(tenant);
  }

  stop(): void {
    clearInterval(this.#sweep);
    this.wakes.stop();
  }
}
