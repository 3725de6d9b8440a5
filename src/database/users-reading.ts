import { z } from "zod";
import type { UserPage, UserQuery } from "../model/user.ts";
import { withConnection, type Login } from "./connection.ts";
import { wholeNumber } from "./whole-number.ts";

const BOUNDS = { connectMs: 5_000, statementMs: 5_000 };

const WHERE = `
  FROM users u LEFT JOIN profiles p ON p.full_user_id = u.name
  WHERE u.is_guest = 0 AND ($1 = '' OR strpos(lower(u.name), lower($1)) > 0 OR strpos(lower(p.displayname), lower($1)) > 0)`;

/** All as text: the owner of the database may have made tables of their own, with whatever in them. */
const USERS = `
  SELECT left(u.name, 255) AS name, left(p.displayname, 255) AS displayname, (u.admin::int <> 0) AS admin,
         (u.deactivated::int <> 0) AS deactivated, coalesce(u.locked, false) AS locked,
         (u.appservice_id IS NOT NULL) AS appservice, left(u.creation_ts::text, 20) AS created,
         (SELECT left(max(timestamp)::text, 20) FROM user_daily_visits v WHERE v.user_id = u.name) AS seen ${WHERE}
  ORDER BY u.name LIMIT $2 OFFSET $3`;

const Row = z.object({
  name: z.string(),
  displayname: z.string().nullable(),
  admin: z.boolean(),
  deactivated: z.boolean(),
  locked: z.boolean(),
  appservice: z.boolean(),
  created: z.string().nullable(),
  seen: z.string().nullable(),
});

/** Of each, so that a date of it is one. */
const LATEST_MS = Date.parse("9999-12-31T00:00:00Z");

/** The tenant's accounts without guests, by user id, read with its own login: also while it sleeps. @throws UserError */
export function readUsers(
  login: Login & { database: string },
  { search = "", offset, limit }: UserQuery,
): Promise<UserPage> {
  return withConnection(
    login,
    login.database,
    async (client) => {
      await client.query("SET default_transaction_read_only TO on");
      const { rows } = await client.query<Record<string, unknown>>(USERS, [search, limit, offset]);
      const { rows: counts } = await client.query<{ n: string }>(`SELECT count(*)::text AS n ${WHERE}`, [search]);
      const items = rows.map((row) => {
        const { name, displayname, created, seen, ...rest } = Row.parse(row);
        // Synapse counts these seconds, and those milliseconds.
        const [createdAt, lastSeen] = [dateOf(created, 1000), dateOf(seen, 1)];
        return {
          userId: name,
          ...(displayname === null ? {} : { displayName: displayname }),
          ...rest,
          ...(createdAt === undefined ? {} : { createdAt }),
          ...(lastSeen === undefined ? {} : { lastSeen: lastSeen.slice(0, 10) }),
        };
      });
      return { items, total: wholeNumber(counts[0]?.n, "users") };
    },
    BOUNDS,
  );
}

function dateOf(text: string | null, unit: number): string | undefined {
  const at = text === null ? Number.NaN : Number(text) * unit;
  return at > 0 && at < LATEST_MS ? new Date(at).toISOString() : undefined;
}
