import { describe, expect, test } from "vitest";
import { problemsOf } from "../../../src/controller/service/problems.ts";
import { CATALOGUE } from "../../../src/model/catalogue/catalogue.ts";
import { newTenantStatus, type Tenant } from "../../../src/model/tenant.ts";

const NONE = { tenants: [], shards: [], gateways: 1, plans: {}, platform: [] };

function failed(reason: string): Tenant {
  return {
    kind: "Tenant",
    metadata: { name: "clinic-a", resourceVersion: "1", generation: 1, creationTimestamp: "2026-01-01T00:00:00.000Z" },
    spec: { serverName: "clinic-a.example", release: "1.163.2", config: "", reclaimPolicy: "Retain" },
    status: { ...newTenantStatus(), phase: "Failed", reason, message: "something is wrong" },
  };
}

describe("what is wrong now", () => {
  test("says of each reason of a tenant what the reference of codes says", () => {
    const ofTenants = CATALOGUE.filter(({ met }) => met.includes("tenant"));
    expect(ofTenants.length).toBeGreaterThan(40);
    for (const { code, todo, runbook } of ofTenants) {
      const [problem] = problemsOf({ ...NONE, tenants: [failed(code)] });
      expect(problem).toMatchObject({
        severity: "Error",
        object: "Tenant/clinic-a",
        reason: code,
        action: todo ?? "It goes on automatically; nothing is to be done.",
        runbook: runbook ?? "SynapseShardsTenantFailed",
      });
    }
  });

  test("has words for a reason that no reference knows, and for a cluster without a gateway", () => {
    const found = problemsOf({ ...NONE, gateways: 0, tenants: [failed("NeverHeardOf")], platform: ["no disk"] });
    expect(found.map(({ reason, action }) => [reason, action])).toEqual([
      ["NoGateway", "Look at the gateway's log."],
      ["NeverHeardOf", "It goes on automatically; nothing is to be done."],
      ["Platform", "Change it there."],
    ]);
  });
});
