import type { Policy } from "../../../src/model/policy.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import type { FakeWorld } from "../../support/fake-world.ts";
import { runController, tenantWhen, type Run } from "../../support/controller-run.ts";

/** Nobody falls asleep but by request, unless a test says otherwise. */
export const QUIET: Policy["hibernation"] = { afterIdleSeconds: 0, minAwakeSeconds: 0, maxConcurrentWakes: 4 };

/** A gateway that acts on what it is told at once, and can wake tenants. @returns what disconnects it */
export function connectGateway({ process: { context } }: Run, { wakes = true } = {}): () => void {
  const { feed } = context;
  const lines = feed.subscribe("gateway", { wakes });
  void (async () => {
    for await (const line of lines)
      if (line.type !== "ping") feed.acknowledge({ gateway: "gateway", version: line.version, parks: {} });
  })();
  return () => lines.close();
}

export function runWith(
  world: FakeWorld,
  hibernation: Partial<Policy["hibernation"]>,
  policy: Partial<Policy> = {},
): Run {
  return runController(world, { policy: { ...policy, hibernation: { ...QUIET, ...hibernation } } });
}

export const isAsleep = ({ status }: Tenant) => status.phase === "Asleep";

export async function asleep(world: FakeWorld, { service }: Run, name: string): Promise<Tenant> {
  await service.sleepTenant(name);
  return tenantWhen(world, name, "asleep", isAsleep);
}
