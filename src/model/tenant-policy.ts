import { z } from "zod";
import { familiesOf, MetricFamiliesSchema } from "./metric-families.ts";
import type { ShardQuotas } from "./quota.ts";

const names = (what: string) => z.array(z.string().min(1).max(255)).max(1000).describe(what).default([]);

/** What an operator allows one tenant beyond the table in docs/configuration.md. */
const OneTenantSchema = z.strictObject({
  allowedOptions: names("paths of options that pass as they are"),
  allowedModules: names("Python modules, dotted and with the class"),
  allowedHosts: names("names, or *.name for all below one"),
  allowedDestinations: names("addresses and networks, with or without a port"),
  /** A layer of homeserver.yaml below the tenant's own. */
  tenantDefaults: z.record(z.string(), z.unknown()).default({}),
});

/** The same for all tenants, with exceptions by name. Shards enforce it; docs/control-api.md, *Policy*. */
export const TenantPolicySchema = z.strictObject({
  ...OneTenantSchema.shape,
  /** Networks that no tenant may connect to, beside those that are private anyway. */
  refusedNetworks: names("networks such as 203.0.113.0/24"),
  /** Families of metrics that shards export of each tenant, besides the few; a tenant may have more of its own. */
  metrics: MetricFamiliesSchema.default([]),
  byTenant: z.record(z.string(), OneTenantSchema).default({}),
});
export type TenantPolicy = z.infer<typeof TenantPolicySchema>;

/** What a shard is told with an assignment. */
export type AssignmentPolicy = Omit<TenantPolicy, "byTenant" | "metrics"> & {
  quotas?: ShardQuotas;
  metrics?: string[];
};

const NOTHING_OF_ITS_OWN = OneTenantSchema.parse({});

/** A part of it, which is asked for of all tenants together. @param more hosts that are its own */
export function allowedHostsFor(policy: TenantPolicy, tenant: string, more: readonly string[] = []): string[] {
  return [...policy.allowedHosts, ...(policy.byTenant[tenant] ?? NOTHING_OF_ITS_OWN).allowedHosts, ...more];
}

/** What holds for one tenant. @param more what the platform itself lets it have: destinations that it may reach, and hosts that are its own */
export function policyFor(
  policy: TenantPolicy,
  tenant: string,
  more: { destinations?: readonly string[]; hosts?: readonly string[] } = {},
): AssignmentPolicy {
  const { destinations = [], hosts = [] } = more;
  const own = policy.byTenant[tenant] ?? NOTHING_OF_ITS_OWN;
  return {
    allowedOptions: [...policy.allowedOptions, ...own.allowedOptions],
    allowedModules: [...policy.allowedModules, ...own.allowedModules],
    allowedHosts: allowedHostsFor(policy, tenant, hosts),
    allowedDestinations: [...policy.allowedDestinations, ...own.allowedDestinations, ...destinations],
    tenantDefaults: { ...policy.tenantDefaults, ...own.tenantDefaults },
    refusedNetworks: policy.refusedNetworks,
    ...familiesOf(policy.metrics),
  };
}
