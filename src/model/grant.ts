import { z } from "zod";
import { messageOf } from "./errors.ts";
import { LONGEST_SELECTOR, parseSelector } from "./labels.ts";
import { isLimited, isTokenName, ROLE_NAMES, type Grant, type Role } from "./role.ts";

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
  .describe(
    "Of a tenant admin, and of who reads tenants' metrics: the selector of its tenants, such as customer=acme.",
  );

/** Fields that every form of a grant has: in a token, an account, a mapping of groups. */
export const GrantFields = { role: RoleSchema, tenants: TenantsSelector.optional() };

const WHO = { "tenant-admin": "a tenant admin", "tenant-metrics": "who reads tenants' metrics" } as const;

/** A limited role without a limit would be one of all tenants, and a limit on another role would mean nothing. */
export function refineGrant(grant: { role: Role; tenants?: string | undefined }, context: z.RefinementCtx): void {
  const message = isLimited(grant.role)
    ? grant.tenants === undefined
      ? `${WHO[grant.role]} needs a selector of its tenants, such as customer=acme`
      : undefined
    : grant.tenants === undefined
      ? undefined
      : `only tenant-admin and tenant-metrics are limited to tenants; the role ${grant.role} is for the whole cluster`;
  if (message !== undefined) context.addIssue({ code: "custom", path: ["tenants"], message });
}

/** Without what is absent. */
export function grantOf({ role, tenants }: { role: Grant["role"]; tenants?: string | undefined }): Grant {
  return tenants === undefined ? { role } : { role, tenants };
}
