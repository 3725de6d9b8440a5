import { z } from "zod";
import { messageOf } from "./errors.ts";
import { LONGEST_SELECTOR, parseSelector } from "./labels.ts";
import { isTokenName, ROLE_NAMES, type Grant } from "./role.ts";

/** Of who has a grant: a token, an account. */
export const PrincipalName = z
  .string()
  .refine(isTokenName, "1 to 64 of a-z, 0-9, dot, underscore and hyphen, other than owner and gateway");
export const RoleSchema = z.enum(ROLE_NAMES);

const TenantsSelector = z
  .string()
  .max(LONGEST_SELECTOR)
  .superRefine((text, context) => {
    try {
      parseSelector(text);
    } catch (error) {
      context.addIssue({ code: "custom", message: messageOf(error) });
    }
  })
  .describe("Of a tenant admin: the selector of its tenants, such as customer=acme.");

/** Fields that every form of a grant has: in a token, an account, a mapping of groups. */
export const GrantFields = { role: RoleSchema, tenants: TenantsSelector.optional() };

/** A tenant admin without a limit would be one of all tenants, and a limit on another role would mean nothing. */
export function refineGrant(grant: { role: string; tenants?: string | undefined }, context: z.RefinementCtx): void {
  const message =
    grant.role === "tenant-admin"
      ? grant.tenants === undefined
        ? "a tenant admin needs a selector of its tenants, such as customer=acme"
        : undefined
      : grant.tenants === undefined
        ? undefined
        : `only a tenant admin is limited to tenants; the role ${grant.role} is for the whole cluster`;
  if (message !== undefined) context.addIssue({ code: "custom", path: ["tenants"], message });
}

/** Without what is absent. */
export function grantOf({ role, tenants }: { role: Grant["role"]; tenants?: string | undefined }): Grant {
  return tenants === undefined ? { role } : { role, tenants };
}
