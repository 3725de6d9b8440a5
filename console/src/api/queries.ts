import { queryOptions } from "@tanstack/react-query";
import { api, dataOf, type ClusterEvent } from "./client.ts";
import type { paths } from "./schema.gen.ts";
import { jsonLinesOf } from "./lines.ts";

/** As many problems as a person looks through. */
const PROBLEMS_SHOWN = "50";

export const statusQuery = queryOptions({
  queryKey: ["status"],
  queryFn: ({ signal }) => dataOf(api.GET("/v1/status", { signal })),
});

export const problemsQuery = queryOptions({
  queryKey: ["problems"],
  queryFn: ({ signal }) => dataOf(api.GET("/v1/problems", { signal, params: { query: { limit: PROBLEMS_SHOWN } } })),
});

export const fleetQuery = queryOptions({
  queryKey: ["fleet"],
  queryFn: ({ signal }) => dataOf(api.GET("/v1/fleet", { signal })),
});

export const shardsQuery = queryOptions({
  queryKey: ["shards"],
  queryFn: ({ signal }) => dataOf(api.GET("/v1/shards", { signal })),
});

/** Newest first. @param object `Tenant/NAME` or `Shard/NAME`; absent: all */
export const eventsQuery = (object?: string) =>
  queryOptions({
    queryKey: ["events", object ?? ""],
    queryFn: async ({ signal }) => {
      const path = object === undefined ? "/v1/events" : `/v1/events?object=${encodeURIComponent(object)}`;
      return (await jsonLinesOf<ClusterEvent>(path, signal)).toReversed();
    },
  });

/** What a person looks for among tenants; in the address, so that it can be kept as a bookmark. */
export interface TenantsSearch {
  search?: string;
  phase?: string;
  shard?: string;
  release?: string;
  selector?: string;
  sort?: "name" | "serverName" | "phase" | "shard" | "release" | "created";
  order?: "ascending" | "descending";
}

export const TENANTS_A_PAGE = 100;

export const tenantsQuery = (found: TenantsSearch, page: number) =>
  queryOptions({
    queryKey: ["tenants", found, page],
    queryFn: ({ signal }) =>
      dataOf(
        api.GET("/v1/tenants", {
          signal,
          params: { query: { ...found, limit: String(TENANTS_A_PAGE), offset: String(page * TENANTS_A_PAGE) } },
        }),
      ),
    // While another page or order is on its way, the one before stays.
    placeholderData: (previous) => previous,
  });

export const tenantQuery = (name: string) =>
  queryOptions({
    queryKey: ["tenant", name],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/tenants/{name}", { signal, params: { path: { name } } })),
  });

export type Range = NonNullable<NonNullable<paths["/v1/history"]["get"]["parameters"]["query"]>["range"]>;

/** Looked at each minute by the controller, and so here. @param shard default: the cluster */
export const historyQuery = (range: Range, shard?: string) =>
  queryOptions({
    queryKey: ["history", range, shard ?? ""],
    refetchInterval: 60_000,
    queryFn: ({ signal }) =>
      dataOf(api.GET("/v1/history", { signal, params: { query: { range, ...(shard ? { shard } : {}) } } })),
    placeholderData: (previous) => previous,
  });

/** By month, the latest first. */
export const usageMonthsQuery = (tenant: string) =>
  queryOptions({
    queryKey: ["usage", tenant],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/usage", { signal, params: { query: { tenant } } })),
  });

export const USERS_A_PAGE = 50;

export const usersQuery = (tenant: string, search: string, page: number) =>
  queryOptions({
    queryKey: ["tenant", tenant, "users", search, page],
    queryFn: ({ signal }) => {
      const query = { search, limit: String(USERS_A_PAGE), offset: String(page * USERS_A_PAGE) };
      return dataOf(api.GET("/v1/tenants/{name}/users", { signal, params: { path: { name: tenant }, query } }));
    },
    placeholderData: (previous) => previous,
  });

export const usageQuery = (name: string) =>
  queryOptions({
    queryKey: ["tenant", name, "usage"],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/tenants/{name}/usage", { signal, params: { path: { name } } })),
  });

export const restQuery = (name: string) =>
  queryOptions({
    queryKey: ["tenant", name, "rest"],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/tenants/{name}/rest", { signal, params: { path: { name } } })),
  });

export const adminAccessQuery = (name: string) =>
  queryOptions({
    queryKey: ["tenant", name, "admin-access"],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/tenants/{name}/admin-access", { signal, params: { path: { name } } })),
  });
