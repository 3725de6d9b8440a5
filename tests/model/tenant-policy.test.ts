import { describe, expect, it } from "vitest";
import { policyFor, TenantPolicySchema } from "../../src/model/tenant-policy.ts";

const policyOf = (tenantPolicy: object, tenant: string, more: object = {}) =>
  policyFor(TenantPolicySchema.parse(tenantPolicy), tenant, more);

describe("what an operator allows tenants", () => {
  it("is nothing by default", () => {
    expect(policyOf({}, "a")).toEqual({
      allowedOptions: [],
      allowedModules: [],
      allowedHosts: [],
      allowedDestinations: [],
      tenantDefaults: {},
      refusedNetworks: [],
    });
  });

  it("adds a tenant's own to what all have, and leaves other tenants alone", () => {
    const policy = {
      allowedOptions: ["rc_message"],
      tenantDefaults: { report_stats: false, enable_search: true },
      refusedNetworks: ["203.0.113.0/24"],
      byTenant: {
        a: { allowedOptions: ["rc_login"], allowedHosts: ["x.example"], tenantDefaults: { enable_search: false } },
      },
    };
    expect(policyOf(policy, "a", { destinations: ["127.0.0.1:8448"], hosts: ["*.a.svc"] })).toMatchObject({
      allowedOptions: ["rc_message", "rc_login"],
      allowedHosts: ["x.example", "*.a.svc"],
      allowedDestinations: ["127.0.0.1:8448"],
      tenantDefaults: { report_stats: false, enable_search: false },
      refusedNetworks: ["203.0.113.0/24"],
    });
    expect(policyOf(policy, "b")).toMatchObject({ allowedOptions: ["rc_message"], allowedHosts: [] });
  });

  it("names a setting that does not exist", () => {
    expect(() => policyOf({ allowedOption: [] }, "a")).toThrow("allowedOption");
    expect(() => policyOf({ byTenant: { a: { refusedNetworks: [] } } }, "a")).toThrow("refusedNetworks");
  });
});
