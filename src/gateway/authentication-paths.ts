import type { Route } from "../model/routes.ts";

/**
 * What clients that know no OAuth ask a homeserver, and an authentication service answers in its place
 * (docs/authentication-service.md): `/login` with the redirect of single sign-on, `/logout` and `/refresh`. Paths are
 * taken as they are spelled; in another spelling the homeserver says that it knows none.
 */
const PATHS =
  /^\/_matrix\/client\/(?:api\/v1|r0|v3|unstable)\/(?:login(?:\/sso\/redirect(?:\/[^/]*)?)?|logout(?:\/all)?|refresh)$/;

/** Whether an authentication service has to answer a request for this target, if its tenant has one. */
export function isForAuthentication(target: string): boolean {
  const mark = target.indexOf("?");
  return PATHS.test(mark === -1 ? target : target.slice(0, mark));
}

/**
 * The route of such a request. The service is there while its tenant moves or sleeps, and asks for it itself where it
 * needs it. What proves to a shard that a gateway asks is not told there. A tenant that is unavailable lets nobody in.
 */
export function routeToAuthentication(route: Route): Route {
  const { tenant, formerly, hosts, epoch, authentication } = route;
  if (authentication === undefined || route.state === "unavailable") return route;
  const known = { tenant, ...(formerly === undefined ? {} : { formerly }), hosts, epoch, authentication };
  return { ...known, state: "serving", address: authentication };
}

/** Whether a route leads to its tenant's authentication service. */
export function leadsToAuthentication({ address, authentication }: Route): boolean {
  return authentication !== undefined && address === authentication;
}
