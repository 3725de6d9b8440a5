export function tenantPath(name: string): string {
  return `/v1/tenants/${encodeURIComponent(name)}`;
}
