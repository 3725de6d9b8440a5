/** What the bearer of a token may do; each role may do what those before it may. */
export const ROLES = {
  viewer: "sees tenants, shards, events and the status; neither configurations nor logs",
  operator: "also moves, drains, updates and creates tenants, registers users, and reads configurations and logs",
  admin: "also deletes tenants, stops the cluster, and manages tokens; reads the audit log",
} as const;
export type Role = keyof typeof ROLES;

const ORDER: readonly Role[] = ["viewer", "operator", "admin"];

export function mayActAs(role: Role, needed: Role): boolean {
  return ORDER.indexOf(role) >= ORDER.indexOf(needed);
}

/** Names that no token of people may have: the cluster's own have them. */
const RESERVED = new Set(["owner", "gateway"]);

export function isTokenName(name: string): boolean {
  return /^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$/.test(name) && !RESERVED.has(name);
}

/** Who makes a request: the name of the token, and its role. */
export interface Actor {
  name: string;
  role: Role;
}

/** A token that people were given, without the token itself. */
export interface NamedToken extends Actor {
  createdAt: string;
}
