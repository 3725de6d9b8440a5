import { z } from "zod";
import type { TenantChange } from "../controller/service/cluster-service.ts";
import { LONGEST_SELECTOR, matches, parseSelector, type Selector } from "../model/labels.ts";
import type { Tenant } from "../model/tenant.ts";
import { failures, type Api, type RouteContext } from "./api.ts";
import { TenantSchema } from "./schemas.ts";
import { viewOfTenant, type TenantView } from "./views.ts";

/** A line of the stream. */
export type WatchLine = { type: "Present"; tenant: TenantView } | { type: "Gone"; name: string } | { type: "Synced" };

const NDJSON = "application/x-ndjson";
const SERVER_SENT = "text/event-stream";

const LineSchema = z.union([
  z.object({ type: z.literal("Present"), tenant: TenantSchema }),
  z.object({ type: z.literal("Gone"), name: z.string() }),
  z.object({ type: z.literal("Synced") }).describe("All that there is has been sent; what comes now are changes."),
]);

/** Tenants as they change. */
export function watchRoutes(app: Api, { service, sendLines }: RouteContext): void {
  app.get(
    "/v1/watch/tenants",
    {
      schema: {
        operationId: "watchTenants",
        summary: "Tenants as they are, and from then on as they change",
        description:
          "Each connection begins with everything, up to the line Synced: who lost one compares, and has missed nothing but states in between.",
        tags: ["tenants"],
        querystring: z.object({
          name: z.string().max(63).optional().describe("Only this tenant."),
          selector: z.string().max(LONGEST_SELECTOR).optional().describe("Only those with these labels."),
        }),
        response: {
          200: {
            description: "One object a line; server-sent events where the request accepts only those.",
            content: { [NDJSON]: { schema: LineSchema }, [SERVER_SENT]: { schema: z.string() } },
          },
          ...failures(422),
        },
      },
    },
    async ({ query, headers }, reply) => {
      const selector = query.selector === undefined ? undefined : parseSelector(query.selector);
      const view = (tenant: Tenant) => viewOfTenant(tenant, service.urlOf(tenant));
      const isWanted = ({ metadata, spec }: Tenant) =>
        (query.name === undefined || metadata.name === query.name) && fits(selector, spec);
      const isServerSent = headers.accept === SERVER_SENT;
      await sendLines(reply, {
        contentType: isServerSent ? SERVER_SENT : NDJSON,
        lines: async function* (signal) {
          for await (const line of selected(service.watchTenants({ signal }), isWanted, view)) {
            const text = JSON.stringify(line);
            // The empty line that ends an event comes with the line's own end.
            yield isServerSent ? `data: ${text}\n` : text;
          }
        },
      });
    },
  );
}

function fits(selector: Selector | undefined, { labels }: Tenant["spec"]): boolean {
  return selector === undefined || matches(selector, labels);
}

/** One that is no longer wanted is gone for who asks. */
async function* selected(
  changes: AsyncIterable<TenantChange>,
  isWanted: (tenant: Tenant) => boolean,
  view: (tenant: Tenant) => TenantView,
): AsyncGenerator<WatchLine> {
  const shown = new Set<string>();
  for await (const change of changes) {
    if (change.type === "Synced") yield change;
    else if (change.type === "Present" && isWanted(change.tenant)) {
      shown.add(change.tenant.metadata.name);
      yield { type: "Present", tenant: view(change.tenant) };
    } else {
      const name = change.type === "Present" ? change.tenant.metadata.name : change.name;
      if (shown.delete(name)) yield { type: "Gone", name };
    }
  }
}
