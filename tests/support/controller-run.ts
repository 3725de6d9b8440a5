import { modify } from "../../src/ports/store.ts";
import type { Timing } from "../../src/controller/context.ts";
import { Controller } from "../../src/controller/controller.ts";
import { StoreClusterService } from "../../src/controller/service/store-cluster-service.ts";
import type { Policy } from "../../src/model/policy.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import { until } from "./patience.ts";
import { FakeProcess, type FakeWorld } from "./fake-world.ts";

export const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };

/** A controller with its API in a world. */
export interface Run {
  process: FakeProcess;
  controller: Controller;
  service: StoreClusterService;
  /** Stops it in order. */
  stop(): Promise<void>;
}

export function runController(
  world: FakeWorld,
  options: { killAtCall?: number; policy?: Partial<Policy>; timing?: Partial<Timing> } = {},
): Run {
  const process = new FakeProcess(world, options);
  const controller = new Controller(process.context);
  // A controller that is killed never starts to the end.
  void controller.start();
  const stop = async () => {
    await controller.stop();
    process.kill();
  };
  return { process, controller, service: new StoreClusterService(process.context, SETTINGS), stop };
}

/** The tenant as soon as it is as described. */
export async function tenantWhen(
  world: FakeWorld,
  name: string,
  what: string,
  is: (tenant: Tenant) => boolean,
): Promise<Tenant> {
  let seen: Tenant | undefined;
  const look = async () => {
    seen = await world.store.get("Tenant", name);
    return seen && is(seen) && seen;
  };
  return until(
    `tenant ${name} ${what}`,
    look,
    undefined,
    () => `${JSON.stringify(seen?.status)} ${world.log.join(", ")}`,
  );
}

export function runs({ status }: Tenant): boolean {
  return status.phase === "Running" && !status.move;
}

/** Whether it runs on that shard, and is to stay there. */
export function runsOn(shard: string): (tenant: Tenant) => boolean {
  return (tenant) => runs(tenant) && tenant.status.shard === shard;
}

/** Creates tenants, and waits until they run. */
export async function created(world: FakeWorld, { service }: Run, names: string[], release?: string): Promise<void> {
  for (const name of names) await service.createTenant({ name, release });
  for (const name of names) await tenantWhen(world, name, "created", runs);
}

/**
 * Runs a controller that is killed at a call, and then another one, until what is waited for has come.
 * @returns what came, whether the first one was killed before that, and the second one
 */
export async function throughKill<T>(
  world: FakeWorld,
  killAtCall: number,
  wait: () => Promise<T>,
): Promise<{ ended: T; end: "done" | "interrupted"; second: Run }> {
  const first = runController(world, { killAtCall });
  const done = wait();
  const end = await Promise.race([
    first.process.whenKilled.then(() => "interrupted" as const),
    done.then(() => "done" as const),
  ]);
  first.process.kill();
  const second = runController(world);
  return { ended: await done, end, second };
}

/** Worlds that wait for their controllers side by side. */
const AT_ONCE = 8;

/**
 * Kills a controller at each call of what it does, in a world each, from the first on, until one gets through.
 * @returns how many were interrupted
 */
export async function atEachCall(attempt: (killAtCall: number) => Promise<"done" | "interrupted">): Promise<number> {
  for (let call = 1, interrupted = 0; ; call += 0.5 * AT_ONCE) {
    const calls = Array.from({ length: AT_ONCE }, (_, n) => call + 0.5 * n);
    const ends = await Promise.all(calls.map(attempt));
    interrupted += ends.filter((end) => end === "interrupted").length;
    if (ends.includes("done")) return interrupted;
  }
}

/** What a restore of tenant "a" asks of the controller. */
export async function askForRestore(world: FakeWorld): Promise<void> {
  const restore = { id: "r", backup: "b", requestedAt: new Date().toISOString(), schemaRelease: "1.163.2" };
  await modify(world.store, "Tenant", "a", ({ status }) => void (status.restore = restore));
}
