import type pg from "pg";
import { beginOf, isMonth, type UsageReading } from "../model/usage-month.ts";
import type { UsageQuestion } from "../ports/databases.ts";
import { withConnection, type Login } from "./connection.ts";
import { wholeNumber } from "./whole-number.ts";

/** Of each question: what takes longer is left out this time. */
const BOUNDS = { connectMs: 5_000, statementMs: 2_000 };
/** Events that one statement looks at, and for how long another one is begun: what is left waits for the next time. */
const EVENTS_AT_ONCE = 50_000;
const LOOKING_MS = 5_000;
/** In PostgreSQL's words: cancelled for its time, and what somebody made of the tables (names, types, rights, values). */
const LEFT_OUT = /^(57014|42|22)/;

/**
 * What a tenant's database says of its use, with the tenant's own login, which reads only. Its owner can write anything there: what is no number is
 * left out, as is what takes too long.
 * @throws UserError where the database cannot be asked at all
 */
export function readTenantUsage(
  login: Login & { database: string },
  serverName: string,
  question: UsageQuestion,
): Promise<UsageReading> {
  return withConnection(
    login,
    login.database,
    async (client) => {
      await client.query("SET default_transaction_read_only TO on");
      const users = await number(
        client,
        "SELECT count(*)::text AS n FROM users WHERE deactivated = 0 AND is_guest = 0 AND appservice_id IS NULL",
      );
      // What is cached of others' media, thumbnails and previews can be had again.
      const mediaBytes = await number(
        client,
        "SELECT coalesce(sum(media_length), 0)::text AS n FROM local_media_repository WHERE url_cache IS NULL",
      );
      const databaseBytes = await number(
        client,
        "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())::text AS n",
      );
      const active = [];
      for (const month of question.months) {
        const found = await orNothing(() => activeIn(client, month));
        if (found) active.push(found);
      }
      const messages = await orNothing(() => newMessages(client, serverName, question));
      return {
        ...(users === undefined ? {} : { users }),
        ...(mediaBytes === undefined ? {} : { mediaBytes }),
        ...(databaseBytes === undefined ? {} : { databaseBytes }),
        ...(messages === undefined ? {} : { messages }),
        active,
      };
    },
    BOUNDS,
  );
}

/** From Synapse's own record of who visited on which day (in UTC), without guests and bridges. */
async function activeIn(client: pg.Client, month: string) {
  const next = new Date(beginOf(month));
  next.setUTCMonth(next.getUTCMonth() + 1);
  const { rows } = await client.query<{ users: string; peak: string }>(
    `SELECT (SELECT count(DISTINCT user_id)::text FROM user_daily_visits WHERE timestamp >= $1 AND timestamp < $2) AS users,
            (SELECT coalesce(max(n), 0)::text FROM
               (SELECT count(DISTINCT user_id) AS n FROM user_daily_visits
                WHERE timestamp >= $1 AND timestamp < $2 GROUP BY timestamp) days) AS peak`,
    [beginOf(month), next.getTime()],
  );
  return {
    month,
    activeUsers: wholeNumber(rows[0]?.users, "user_daily_visits"),
    activeUsersDailyPeak: wholeNumber(rows[0]?.peak, "user_daily_visits"),
  };
}

/** Each event is looked at once: they have an order, in which later ones come behind. */
async function newMessages(
  client: pg.Client,
  serverName: string,
  { messagesFrom, receivedBefore }: UsageQuestion,
): Promise<NonNullable<UsageReading["messages"]>> {
  const top = await place(client, "SELECT coalesce(max(stream_ordering), 0)::text AS n FROM events", []);
  // Of a database from before, the newest part; of one that was put back to an earlier state, what comes from now on.
  let from = messagesFrom === undefined ? Math.max(0, top - EVENTS_AT_ONCE) : Math.min(messagesFrom, top);
  const sent = new Map<string, number>();
  const begun = performance.now();
  while (from < top && performance.now() - begun < LOOKING_MS) {
    const end = Math.min(from + EVENTS_AT_ONCE, top);
    const to = await place(
      client,
      `SELECT (coalesce(min(stream_ordering), $2::bigint + 1) - 1)::text AS n FROM events
       WHERE stream_ordering > $1 AND stream_ordering <= $2 AND received_ts >= $3`,
      [from, end, receivedBefore],
    );
    const { rows } = await client.query<{ month: string; count: string }>(
      `SELECT to_char(to_timestamp(received_ts / 1000) AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*)::text AS count
       FROM events WHERE stream_ordering > $1 AND stream_ordering <= $2 AND type IN ('m.room.message', 'm.room.encrypted')
         AND NOT outlier AND right(sender, $4) = $3 GROUP BY 1`,
      [from, to, `:${serverName}`, serverName.length + 1],
    );
    for (const { month, count } of rows)
      if (isMonth(month)) sent.set(month, (sent.get(month) ?? 0) + wholeNumber(count, "events"));
    from = to;
    if (to < end) break;
  }
  return { from: messagesFrom, to: from, sent: [...sent].map(([month, count]) => ({ month, count })) };
}

async function place(client: pg.Client, sql: string, values: unknown[]): Promise<number> {
  const { rows } = await client.query<{ n: string }>(sql, values);
  return wholeNumber(rows[0]?.n, "events.stream_ordering");
}

function number(client: pg.Client, sql: string): Promise<number | undefined> {
  return orNothing(async () => wholeNumber((await client.query<{ n: string }>(sql)).rows[0]?.n, "a figure"));
}

async function orNothing<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (typeof code === "string" && (LEFT_OUT.test(code) || code === "Environment")) return undefined;
    throw error;
  }
}
