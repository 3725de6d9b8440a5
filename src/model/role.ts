/** What a principal may do. Each role of the whole cluster may do what those before it may; those that are limited to tenants are none of them. */
export const ROLES = {
  "tenant-admin":
    "sees and configures the tenants that a selector of labels gives to it, and nothing else (docs/access.md)",
  "tenant-metrics": "reads the metrics of the tenants that a selector of labels gives to it, and nothing else",
  viewer: "sees tenants, shards, events and the status; neither configurations nor logs",
  operator: "also moves, drains, updates and creates tenants, registers users, and reads configurations and logs",
  admin: "also deletes tenants, stops the cluster, and manages tokens; reads the audit log",
} as const;
export type Role = keyof typeof ROLES;
export const ROLE_NAMES = Object.keys(ROLES) as [Role, ...Role[]];

/** Of some tenants alone. */
export type LimitedRole = "tenant-admin" | "tenant-metrics";
/** A role that is for the whole cluster. */
export type ClusterRole = Exclude<Role, LimitedRole>;

export function isLimited(role: Role): role is LimitedRole {
  return role === "tenant-admin" || role === "tenant-metrics";
}

/** Whether people have it. Other roles are of machines, which the console has nothing for. */
export function mayUseConsole(role: Role): boolean {
  return role !== "tenant-metrics";
}

const ORDER: readonly Role[] = ["viewer", "operator", "admin"];

export function mayActAs(role: Role, needed: ClusterRole): boolean {
  return ORDER.includes(role) && ORDER.indexOf(role) >= ORDER.indexOf(needed);
}

/** Names that no token of people may have: the cluster's own have them. */
const RESERVED = new Set(["owner", "gateway"]);

export function isTokenName(name: string): boolean {
  return /^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$/.test(name) && !RESERVED.has(name);
}

/** What somebody may do, and with which tenants. */
export interface Grant {
  role: Role;
  /** The selector of the tenants of a limited role; such as `customer=acme`. Others have none. */
  tenants?: string;
}

/** Who makes a request. */
export interface Actor extends Grant {
  /** Of the token; of people who sign in otherwise with the way before it, such as `oidc:ada`. */
  name: string;
}

/** A token that people or machines were given, without the token itself. */
export interface NamedToken extends Actor {
  /** Absent where the platform does not know. */
  createdAt?: string;
  /** Absent: it does not expire. */
  expiresAt?: string;
  /** Absent: never, as far as is known. Noted every few minutes at most. */
  lastUsedAt?: string;
}
