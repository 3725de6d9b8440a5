import { describe, expect, it } from "vitest";
import { SteadyClock } from "../../../src/model/clock.ts";
import { routeOf } from "../../../src/controller/routes/routes.ts";
import { Claims } from "../../../src/controller/claims/claims.ts";
import type { MoveReason, MoveStep } from "../../../src/model/move.ts";
import type { Tenant, TenantStatus } from "../../../src/model/tenant.ts";
import { STATUS } from "../../ports/store-contract.ts";

const ADDRESS = "127.0.0.1:4001";

function routeIn(status: Partial<TenantStatus>) {
  const claims = new Claims(
    ({ metadata: { name } }) => ({ host: "postgres.ours", port: 5432, name }),
    new SteadyClock(),
    () => [],
  );
  const tenant: Tenant = {
    kind: "Tenant",
    metadata: { name: "a", creationTimestamp: new Date(0).toISOString(), resourceVersion: "1", generation: 1 },
    spec: { serverName: "a.example", config: "", release: "1.163.2", reclaimPolicy: "Retain" },
    status: { ...STATUS, address: ADDRESS, ...status },
  };
  return routeOf(tenant, claims);
}

function moving(step: MoveStep, reason: MoveReason = "Requested") {
  const move = { id: "m", from: "s-0", to: "s-1", reason, step, requestedAt: new Date(0).toISOString() };
  return routeIn({ phase: "Moving", move });
}

describe("the route of a tenant that moves", () => {
  it.each(["Parking", "Draining"] as const)("names the shard that still drains it, in step %s", (step) => {
    expect(moving(step)).toMatchObject({ state: "parked", draining: ADDRESS });
    expect(moving(step)).not.toHaveProperty("address");
  });

  it("names nobody once it is stopped, and nobody for a shard that is lost: what is in flight there is sent again", () => {
    expect(moving("Starting")).toMatchObject({ state: "parked" });
    for (const route of [moving("Starting"), moving("Parking", "ShardLost"), moving("Draining", "ShardLost")])
      expect(route).not.toHaveProperty("draining");
  });

  it("leads to it before it is parked and after it is released", () => {
    for (const step of ["Preparing", "Releasing"] as const)
      expect(moving(step)).toMatchObject({ state: "serving", address: ADDRESS });
  });

  it("names who has it on the way to a dedicated Synapse", () => {
    const transition = { id: "t", to: "dedicated", from: "s-0", step: "Draining", requestedAt: "" } as const;
    expect(routeIn({ phase: "Moving", transition })).toMatchObject({ state: "parked", draining: ADDRESS });
    const route = routeIn({ phase: "Moving", transition: { ...transition, step: "Starting" }, address: undefined });
    expect(route).not.toHaveProperty("draining");
  });
});
