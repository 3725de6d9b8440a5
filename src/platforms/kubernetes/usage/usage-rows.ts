/** What tenants took, as it is kept in an object of Kubernetes: JSON without names that repeat, compressed. Pure. */
import { gunzipSync, gzipSync } from "node:zlib";
import { z } from "zod";
import { defined } from "../../../model/defined.ts";
import { isMonth, type UsageMonth, type UsagePosition } from "../../../model/usage-month.ts";

/** One tenant's: where it is counted on, and a row per month. */
export interface UsageRecord {
  position: UsagePosition;
  months: ReadonlyMap<string, UsageMonth>;
}

/** A row has its figures in this order, and null for one that is not known. */
const FIGURES = [
  "users",
  "activeUsers",
  "activeUsersDailyPeak",
  "messages",
  "mediaBytes",
  "databaseBytes",
  "cpuSeconds",
  "requests",
  "peakRequestsPerMinute",
] as const;

const figure = z.number().nullable();
const RowSchema = z.tuple([z.string(), z.string(), ...FIGURES.map(() => figure)]);
const PositionSchema = z.object({
  tenant: z.string(),
  serverName: z.string(),
  runs: z.array(z.object({ run: z.string(), epoch: z.number(), cpuSeconds: z.number(), requests: z.number() })),
  settledEpoch: z.number().optional(),
  messagesTo: z.number().optional(),
  usedAt: z.string().optional(),
  readAt: z.string().optional(),
});
const RecordsSchema = z.object({
  format: z.literal(1),
  tenants: z.array(z.object({ position: PositionSchema, months: z.array(RowSchema) })),
});

export function packed(records: Iterable<UsageRecord>): Buffer {
  const tenants = [...records].map(({ position, months }) => ({ position, months: [...months.values()].map(rowOf) }));
  return gzipSync(JSON.stringify({ format: 1, tenants }));
}

/** @throws Error where it is not what `packed` makes */
export function unpacked(bytes: Buffer): UsageRecord[] {
  const { tenants } = RecordsSchema.parse(JSON.parse(gunzipSync(bytes).toString("utf8")));
  return tenants.map(({ position, months }) => {
    const rows = months.map((row) => monthIn(row, position));
    const { settledEpoch, messagesTo, usedAt, readAt, ...rest } = position;
    return {
      position: { ...rest, ...defined({ settledEpoch, messagesTo, usedAt, readAt }) },
      months: new Map(rows.map((row) => [row.month, row])),
    };
  });
}

function rowOf(month: UsageMonth): unknown[] {
  return [month.month, month.updatedAt, ...FIGURES.map((name) => month[name] ?? null)];
}

function monthIn(row: readonly (string | number | null)[], { tenant, serverName }: UsagePosition): UsageMonth {
  const [month, updatedAt, ...figures] = row;
  if (typeof month !== "string" || !isMonth(month)) throw new Error(`${String(month)} is no month`);
  const known = FIGURES.flatMap((name, index) => (figures[index] === null ? [] : [[name, figures[index]]]));
  return {
    tenant,
    serverName,
    month,
    cpuSeconds: 0,
    requests: 0,
    ...(Object.fromEntries(known) as Partial<UsageMonth>),
    updatedAt: String(updatedAt),
  };
}
