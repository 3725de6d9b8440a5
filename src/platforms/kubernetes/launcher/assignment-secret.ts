import type { AppServicePing } from "../../../model/app-service.ts";
import type { OpenedSession, SessionToEnd, UserChange } from "../../../model/user.ts";
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import {
  ShardRefusal,
  type Assignment,
  type PreparerCalls,
  type ShardControl,
  type ShardLoad,
  type ShardState,
  type StopOptions,
  type StopResult,
  type TenantIdle,
  type TenantState,
  type TenantCheck,
} from "../../../ports/shard-control.ts";

/** Outside the range from which systems take ports for outgoing connections. */
const FIRST_PORT = 20_000;
const PORTS = 10_000;

/** Keeps copies of assignments where the pod that replaces another finds them. */
export interface AssignmentCopies {
  /** @throws ShardRefusal AssignmentTooLarge; whatever the platform throws */
  write(tenant: string, content: Buffer): Promise<void>;
  remove(tenant: string): Promise<void>;
}

/**
 * A shard's control API, with a copy of each assignment in the shard's Secret: its own state directory ends with its pod.
 *
 * Written before the start: were it the other way round, a pod that dies between the two would come back without a tenant
 * that clients have seen there. Removed after the stop: the other way round, it would come back without a tenant that was
 * never stopped. A crash between leaves one copy too many, which does no harm: if the tenant has been claimed elsewhere, the
 * fence refuses this shard; if not, the tenant runs here until the controller, which finds it on a shard that is not its own,
 * stops it, and that removes the copy.
 */
export class CopyingControl implements ShardControl {
  readonly #inner: ShardControl;
  readonly #copies: AssignmentCopies;

  constructor(inner: ShardControl, copies: AssignmentCopies) {
    this.#inner = inner;
    this.#copies = copies;
  }

  async startTenant(name: string, assignment: Assignment): Promise<TenantState> {
    const asked = { ...assignment, port: proposedPort(name) };
    await this.#copies.write(name, encode(asked));
    let state: TenantState;
    try {
      state = await this.#inner.startTenant(name, asked);
    } catch (error) {
      // The shard forgets what it could not start. After no answer it may run, and the copy stays.
      if (error instanceof ShardRefusal && !keepsAssignment(error)) await this.#copies.remove(name).catch(() => {});
      throw error;
    }
    const port = portOf(state.address);
    // The proposal was taken, by another tenant of the same hash: the pod that follows shall use what gateways have been told.
    if (port !== undefined && port !== asked.port) await this.#copies.write(name, encode({ ...asked, port }));
    return state;
  }

  async stopTenant(name: string, drainSeconds: number, options?: StopOptions): Promise<StopResult> {
    const stopped = await this.#inner.stopTenant(name, drainSeconds, options);
    await this.#copies.remove(name);
    return stopped;
  }

  checkTenant(name: string, assignment: Assignment): Promise<TenantCheck> {
    return this.#inner.checkTenant(name, assignment);
  }

  state(): Promise<ShardState> {
    return this.#inner.state();
  }

  idle(name: string): Promise<TenantIdle | undefined> {
    return this.#inner.idle(name);
  }

  changeUser(name: string, localpart: string, change: UserChange): Promise<string | undefined> {
    return this.#inner.changeUser(name, localpart, change);
  }

  pingAppService(name: string, id: string): Promise<AppServicePing | undefined> {
    return this.#inner.pingAppService(name, id);
  }

  metricsOf(name: string): Promise<string | undefined> {
    return this.#inner.metricsOf(name);
  }

  openSession(name: string, localpart: string, seconds: number): Promise<OpenedSession | undefined> {
    return this.#inner.openSession(name, localpart, seconds);
  }

  endSessions(name: string, sessions: readonly SessionToEnd[]): Promise<number | undefined> {
    return this.#inner.endSessions(name, sessions);
  }

  greet(name: string, spreadSeconds: number): Promise<number | undefined> {
    return this.#inner.greet(name, spreadSeconds);
  }

  load(): Promise<ShardLoad> {
    return this.#inner.load();
  }

  get preparers(): PreparerCalls {
    return this.#inner.preparers;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

/**
 * The port a tenant asks for, the same on every shard: in a pod of its own nearly every port is free, so the port is known
 * before the start, and the copy need not be written twice.
 */
export function proposedPort(tenant: string): number {
  return FIRST_PORT + (createHash("sha256").update(tenant).digest().readUInt32BE() % PORTS);
}

/** Compressed, as configurations are text, often with pages of comments, and all of a shard's tenants share 1 MiB. */
function encode(assignment: Assignment): Buffer {
  return gzipSync(JSON.stringify(assignment));
}

/** It runs, with an assignment of its own that is not this one. */
function keepsAssignment(refusal: ShardRefusal): boolean {
  return refusal.code === "AlreadyRunning" || refusal.code === "StaleEpoch" || refusal.code === "ShuttingDown";
}

function portOf(address: string | null): number | undefined {
  const digits = address === null ? null : /:(\d+)$/.exec(address);
  return digits ? Number(digits[1]) : undefined;
}
