import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { mayActAs, type ClusterRole, type Role } from "../../../src/model/role.ts";
import { api, ApiFailure, dataOf } from "./client.ts";

export interface Person {
  name: string;
  role: Role;
  /** Of a tenant admin: the selector of its tenants. */
  tenants?: string | undefined;
}

/** Who is signed in; null: nobody. */
export function useSession() {
  return useQuery<Person | null>({
    queryKey: ["session"],
    staleTime: Infinity,
    queryFn: async () => {
      try {
        return await dataOf(api.GET("/v1/whoami"));
      } catch (error) {
        if (error instanceof ApiFailure && error.status === 401) return null;
        throw error;
      }
    },
  });
}

/** What signs somebody in, and shows them the console. */
export function useEntry<T>(enter: (given: T) => Promise<Person>) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: enter,
    onSuccess: ({ name, role, tenants }) => client.setQueryData<Person>(["session"], { name, role, tenants }),
  });
}

export function useSignIn() {
  return useEntry((token: string) => dataOf(api.POST("/v1/session", { body: { token } })));
}

export function useSignOut() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => dataOf(api.DELETE("/v1/session")),
    // What one person saw is not for the next.
    onSuccess: ({ continueAt }) => {
      // The identity provider would let the next one in without asking.
      if (continueAt !== undefined) window.location.assign(continueAt);
      client.setQueryData(["session"], null);
      client.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== "session" });
    },
  });
}

/** Whether the person may do what needs a role. */
export function useMay(needed: ClusterRole): boolean {
  const { data } = useSession();
  return data ? mayActAs(data.role, needed) : false;
}

/** Whether the person sees some tenants only, and nothing else of the cluster. */
export function useIsTenantAdmin(): boolean {
  return useSession().data?.role === "tenant-admin";
}

/** Whether the person may configure the tenants that they see, and read their logs. */
export function useMayTend(): boolean {
  const mayOperate = useMay("operator");
  return useIsTenantAdmin() || mayOperate;
}
