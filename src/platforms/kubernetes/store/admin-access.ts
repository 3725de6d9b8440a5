import { AdminAccessSchema, type AdminAccess } from "../../../model/admin-access.ts";
import type { Finding } from "./conditions.ts";
import type { SynapseTenant } from "./resources.ts";

/** Who may come in. The API server checks what is written only roughly: with a list that is wrong, nobody may. */
export function adminAccessOf({ spec }: Pick<SynapseTenant, "spec">): AdminAccess | undefined {
  return AdminAccessSchema.safeParse(spec.adminAccess).data;
}

/** What is written and wrong, and so is not in the model: it stays, and its owner is told. */
export function unreadableAdminAccess(tenant: Pick<SynapseTenant, "spec">): SynapseTenant["spec"]["adminAccess"] {
  return adminAccessOf(tenant) ? undefined : tenant.spec.adminAccess;
}

/** @returns none of a tenant that nobody wants open @param hasEntrance whether gateways let administrators in anywhere */
export function adminAccessFindings({ spec }: Pick<SynapseTenant, "spec">, hasEntrance: boolean): Finding[] {
  if (spec.adminAccess === undefined) return [];
  const type = "AdminAccess";
  const { success, error } = AdminAccessSchema.safeParse(spec.adminAccess);
  if (!success) {
    const [{ path, message } = { path: [], message: "" }] = error.issues;
    const place = ["spec.adminAccess", ...path].join(".");
    return [{ type, status: "False", reason: "InvalidNetworks", message: `${place}: ${message}; nobody may come in` }];
  }
  if (!hasEntrance) {
    const message = "the cluster has no entrance for administrators (gateway.adminAccess.enabled of its chart)";
    return [{ type, status: "False", reason: "NoEntrance", message }];
  }
  return [{ type, status: "True", reason: "Open", message: "" }];
}
