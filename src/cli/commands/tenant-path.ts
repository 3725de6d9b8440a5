export function tenantPath(name: string): string {
  return `/v1/tenants/${encodeURIComponent(name)}`;
}

/** What a tenant has for certain in an answer of the API. */
export const HAS = ["metadata", "spec", "status"] as const;
