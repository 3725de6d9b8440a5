import { z } from "zod";
import type { Route } from "../model/routes.ts";
import { describeIssues } from "../model/validation.ts";
import { RouteSchema } from "./routes-file.ts";

/** Reason of the route in the place of one that cannot be read. */
const UNREADABLE = "UnreadableRoute";

const { tenant, epoch, hosts } = RouteSchema.shape;
/** Whose a route is, as far as that can be read. */
const WhoseSchema = z.object({ tenant, epoch: epoch.catch(0), hosts: z.array(z.unknown()).catch([]) });

/**
 * The routes of a line. One that cannot be read must not keep those of all others away. Nor may its tenant go on where
 * it was, as the controller takes it for told, nor may its hosts become somebody else's: it is unavailable.
 * @returns also what is wrong, a sentence for each, which never quotes a route
 */
export function heardRoutes(heard: readonly unknown[]): { routes: Route[]; problems: string[] } {
  const routes: Route[] = [];
  const problems: string[] = [];
  for (const one of heard) {
    const read = RouteSchema.safeParse(one);
    if (read.success) {
      routes.push(read.data);
      continue;
    }
    const whose = WhoseSchema.safeParse(one);
    problems.push(`${whose.data?.tenant ?? "a tenant"}: ${describeIssues(read.error).slice(0, 3).join("; ")}`);
    // Without a name it is nobody's; who was meant stays where it was.
    if (!whose.success) continue;
    const readable = whose.data.hosts.filter((host) => hosts.element.safeParse(host).success) as string[];
    routes.push({ ...whose.data, hosts: readable.slice(0, 100), state: "unavailable", reason: UNREADABLE });
  }
  return { routes, problems };
}
