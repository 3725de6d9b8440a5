import type { Route } from "../../model/routes.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { Claims } from "../claims/claims.ts";

/** Where a tenant's requests go, from where it stands. A host that is another tenant's does not lead to it, whoever is told of first. */
export function routeOf(tenant: Tenant, claims: Claims): Route {
  const { phase, address, epoch, move } = tenant.status;
  const route = { tenant: tenant.metadata.name, hosts: claims.hostsOf(tenant), epoch };
  const serving = (at: string): Route => ({ ...route, state: "serving", address: at });
  const parked = (): Route => ({ ...route, state: "parked", reason: phase });
  if (tenant.metadata.deletionTimestamp !== undefined || phase === "Deleting")
    return { ...route, state: "unavailable", reason: "Deleting" };
  switch (phase) {
    case "Running":
      return address === undefined ? parked() : serving(address);
    case "Moving":
      if (address !== undefined && (move?.step === "Preparing" || move?.step === "Releasing")) return serving(address);
      return parked();
    case "Provisioning":
      return parked();
    case "Starting":
      // A shard that is coming up again takes the same ports: gateways hold what is refused meanwhile.
      return address === undefined ? parked() : serving(address);
    default:
      return { ...route, state: "unavailable", reason: phase };
  }
}
