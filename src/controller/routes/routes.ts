import type { MoveStep, TransitionStep } from "../../model/move.ts";
import { authenticationAddress } from "../../model/authentication-service.ts";
import { configuredUrlOf, delegateOf } from "../../model/delegation.ts";
import { tryReadConfig } from "../../model/config-reading.ts";
import { answersIn } from "../../model/public-answers.ts";
import { SUSPENDED, type Route } from "../../model/routes.ts";
import { WAKING } from "../../model/wake.ts";
import { wantedRelease, type Tenant } from "../../model/tenant.ts";
import type { Claims } from "../claims/claims.ts";

/** Where a tenant's requests go, from where it stands. A host that is another tenant's does not lead to it, in whatever order they are told. */
export function routeOf(tenant: Tenant, claims: Claims): Route {
  const { phase, reason, address, epoch, move, transition, shard, dedicated, throttle, wake } = tenant.status;
  const { name } = tenant.metadata;
  const delegate = delegateOf(tenant.spec.serverName, configuredUrlOf(tenant));
  const { adminAccess } = tenant.spec;
  const formerly = tenant.status.formerNames?.at(-1)?.name;
  const facts = {
    ...(formerly === undefined ? {} : { formerly }),
    ...revisionOf(tenant),
    ...(delegate === undefined ? {} : { delegate }),
    ...authenticationOf(tenant),
    ...(adminAccess ? { adminAccess: { allowedNetworks: adminAccess.allowedNetworks } } : {}),
  };
  const route = { tenant: name, hosts: claims.hostsOf(tenant), epoch, ...facts };
  const share = throttle === undefined ? {} : { share: throttle.part };
  const of = shard === undefined ? (dedicated ? { dedicated: true as const } : {}) : { shard, ...share };
  const serving = (at: string): Route => ({ ...route, ...of, state: "serving", address: at });
  const parked = (): Route => ({ ...route, state: "parked", reason: phase });
  // A lost shard is not waited for: what is in flight there is sent again.
  const isDrained = isStopping(move?.step ?? transition?.step) && move?.reason !== "ShardLost";
  if (tenant.metadata.deletionTimestamp !== undefined || phase === "Deleting")
    return { ...route, state: "unavailable", reason: "Deleting" };
  switch (phase) {
    case "FallingAsleep":
      return address === undefined ? parked() : { ...parked(), ...of, draining: address };
    case "Suspended":
      return { ...route, state: "unavailable", reason: SUSPENDED, ...wordsOf(tenant) };
    case "Asleep":
      return { ...route, state: "asleep", reason: phase, ...positionOf(tenant) };
    case "Running":
      return address === undefined ? parked() : serving(address);
    case "Moving":
      if (address !== undefined && (move?.step === "Preparing" || move?.step === "Releasing")) return serving(address);
      return address !== undefined && isDrained ? { ...parked(), ...of, draining: address } : parked();
    case "Pending":
      // Requests for a tenant that wakes wait for it, unless it has no place.
      if (wake && reason === WAKING) return { ...parked(), reason: WAKING };
      return { ...route, state: "unavailable", reason: wake && reason !== "" ? reason : phase };
    case "Provisioning":
      return parked();
    case "Starting":
      // A shard that is coming up again takes the same ports: gateways hold what is refused meanwhile.
      if (address !== undefined) return serving(address);
      return wake ? { ...parked(), reason: WAKING } : parked();
    default:
      return { ...route, state: "unavailable", reason: phase };
  }
}

/** What its answers to anybody's questions depend on, besides how it came to run: a restart alone changes none of them. */
function revisionOf(tenant: Tenant): Pick<Route, "revision"> {
  const { inEffect, schemaRelease = "" } = tenant.status;
  return inEffect ? { revision: `${wantedRelease(tenant)}/${schemaRelease}/${inEffect.hash}` } : {};
}

/** Where logins go while its accounts are kept there by what runs: whatever is asked for, a homeserver that keeps them itself has to answer. */
function authenticationOf({ spec, status }: Tenant): Pick<Route, "authentication"> {
  const { authenticationService: url } = spec;
  if (url === undefined || status.inEffect?.meaning.authenticationService !== true) return {};
  return { authentication: authenticationAddress(url) };
}

/** What gateways say in its place. */
function wordsOf({ spec, status: { lastWords, inEffect } }: Tenant): Pick<Route, "said" | "contact"> {
  const said = lastWords && answersIn(lastWords, inEffect?.hash);
  const contact = tryReadConfig(spec.config)?.adminContact;
  return { ...(said ? { said } : {}), ...(contact === undefined ? {} : { contact }) };
}

function positionOf({ status: { sleep } }: Tenant): Pick<Route, "position"> {
  return sleep?.position === undefined ? {} : { position: sleep.position };
}

/** Whether the tenant's owner may still be at its requests (docs/stops.md). */
function isStopping(step: MoveStep | TransitionStep | undefined): boolean {
  return step === "Parking" || step === "Draining";
}
