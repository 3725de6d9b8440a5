import type { Route } from "../../model/routes.ts";
import type { KeptAnswer } from "./answer.ts";
import type { NothingNew, PollIdentity } from "./idle-polls.ts";
import { Interner } from "./interner.ts";
import { isSamePosition } from "./position.ts";

/** One tenant may have this part of the bounds: however many clients it has, others find room. */
const TENANT_PART = 4;
/** A client that has not asked again by then wakes its tenant when it does. Of tenants that are awake; those asleep keep what they have. */
const FRESH_MS = 30 * 60_000;
/** Of an entry besides its texts: measured, rounded up. */
const ENTRY_BYTES = 300;

export interface PollMemoryLimits {
  maxRememberedBytes: number;
}

interface Remembered extends NothingNew {
  answer: KeptAnswer;
  at: number;
  bytes: number;
}

interface TenantMemory {
  epoch: number;
  /** The one that was answered first is first. */
  polls: Map<string, Remembered>;
  bytes: number;
}

/**
 * The last answer to each poll of each client, where that was "nothing new". The same poll from where that answer led to can be given the same again
 * for as long as nothing happens: the position stays, so whatever happens later comes after it. Pure but for its size.
 */
export class PollMemory {
  readonly #limits: PollMemoryLimits;
  readonly #tenants = new Map<string, TenantMemory>();
  readonly #heads = new Interner();
  #bytes = 0;

  constructor(limits: PollMemoryLimits) {
    this.#limits = limits;
  }

  get bytes(): number {
    return this.#bytes + this.#heads.bytes;
  }

  size(tenant: string): number {
    return this.#tenants.get(tenant)?.polls.size ?? 0;
  }

  /** @param epoch under which it was answered; what was answered under another one is forgotten */
  remember(tenant: string, epoch: number, key: string, said: NothingNew, answer: KeptAnswer, now: number): void {
    this.forgetPoll(tenant, key);
    let memory = this.#tenants.get(tenant);
    if (memory && memory.epoch !== epoch) {
      if (memory.epoch > epoch) return;
      this.forget(tenant);
      memory = undefined;
    }
    const bytes = ENTRY_BYTES + answer.body.length + said.standing.length + said.position.length;
    const bound = this.#limits.maxRememberedBytes;
    memory ??= { epoch, polls: new Map(), bytes: 0 };
    // A tenant makes room among its own: nobody else's are lost by what it does.
    for (const [oldest] of memory.polls) {
      if (memory.bytes + bytes <= bound / TENANT_PART && this.bytes + bytes <= bound) break;
      this.forgetPoll(tenant, oldest);
    }
    if (memory.bytes + bytes > bound / TENANT_PART || this.bytes + bytes > bound) return;
    const head = this.#heads.take(answer.head);
    // Without any, it was forgotten.
    this.#tenants.set(tenant, memory);
    memory.polls.set(key, { ...said, answer: { ...answer, head }, at: now, bytes });
    memory.bytes += bytes;
    this.#bytes += bytes;
  }

  /**
   * The answer that a poll may be given again: it stands exactly where its last answer led to, and that answer had nothing new. Where the tenant is
   * asleep, nothing may lie between there and where its streams ended; on its way there and back, that shows later.
   */
  find({ tenant, state, position }: Route, { key, standing }: PollIdentity): KeptAnswer | undefined {
    const found = this.#tenants.get(tenant)?.polls.get(key);
    if (found?.standing !== standing) return undefined;
    if (state !== "asleep") return found.answer;
    return position !== undefined && isSamePosition(found.position, position) ? found.answer : undefined;
  }

  forgetPoll(tenant: string, key: string): void {
    const memory = this.#tenants.get(tenant);
    const found = memory?.polls.get(key);
    if (!memory || !found) return;
    memory.polls.delete(key);
    memory.bytes -= found.bytes;
    this.#bytes -= found.bytes;
    this.#heads.give(found.answer.head);
    if (memory.polls.size === 0) this.#tenants.delete(tenant);
  }

  rename(former: string, to: string): void {
    const memory = this.#tenants.get(former);
    if (!memory) return;
    this.forget(to);
    this.#tenants.delete(former);
    this.#tenants.set(to, memory);
  }

  forget(tenant: string): void {
    for (const key of this.#tenants.get(tenant)?.polls.keys() ?? []) this.forgetPoll(tenant, key);
    this.#tenants.delete(tenant);
  }

  /** The tenant is served under this epoch from now on. */
  serves(tenant: string, epoch: number): void {
    const memory = this.#tenants.get(tenant);
    if (memory && memory.epoch !== epoch) this.forget(tenant);
  }

  /** Drops what nobody has asked for in a while. @param isAwake whether a tenant is served */
  sweep(now: number, isAwake: (tenant: string) => boolean): void {
    for (const [tenant, { polls }] of this.#tenants) {
      if (!isAwake(tenant)) continue;
      for (const [key, { at }] of polls) {
        if (now - at < FRESH_MS) break;
        this.forgetPoll(tenant, key);
      }
    }
  }
}
