/** An account of a tenant, as its database has it. */
export interface UserSummary {
  userId: string;
  displayName?: string;
  admin: boolean;
  deactivated: boolean;
  locked: boolean;
  /** Of an application service: a bridge's, or a bot. */
  appservice: boolean;
  createdAt?: string;
  /** The day on which it was last used, in UTC. */
  lastSeen?: string;
}

export interface UserPage {
  items: UserSummary[];
  /** With those beyond the limit. */
  total: number;
}

export interface UserQuery {
  /** Part of the user id or of the display name. */
  search?: string;
  offset: number;
  limit: number;
}

export const MOST_USERS_AT_ONCE = 500;
export const LONGEST_PASSWORD = 512;

/** What an operator changes of one. */
export type UserChange =
  | { kind: "password"; password: string; logoutDevices: boolean }
  /** `erase`: what the user wrote is no longer shown to those who join later. */
  | { kind: "deactivate"; erase: boolean }
  | { kind: "admin"; admin: boolean };

/** A session of an administrator that was opened for somebody else; the token is nowhere else. */
export interface OpenedSession {
  userId: string;
  token: string;
  /** When it ends, in milliseconds; not told by a shard of an earlier version. */
  until?: number | undefined;
}

/** By what was told when it was opened. */
export interface SessionToEnd {
  /** The part of the user id before the colon. */
  user: string;
  until: number;
}

/** The part of a user id before the colon, of what a person gives: that part, or the whole id; undefined for a user of another server. */
export function localpartOf(given: string, serverName: string): string | undefined {
  const whole = /^@([^:]*):(.+)$/s.exec(given);
  if (whole && whole[2] !== serverName) return undefined;
  const localpart = whole ? whole[1]! : given.replace(/^@/, "");
  return localpart !== "" && localpart.length <= 255 && !/[:@\0]/.test(localpart) ? localpart : undefined;
}
