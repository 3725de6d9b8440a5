/** What can be measured as it grows: a soft limit warns, a hard one refuses. */
export const MEASURED_QUOTAS = {
  users: "accounts, without deactivated ones, guests and those of bridges",
  monthlyActiveUsers: "users that were active in the month",
  mediaBytes: "media that its users uploaded",
  databaseBytes: "size of its database",
} as const;
export type MeasuredQuota = keyof typeof MEASURED_QUOTAS;
export const MEASURED = Object.keys(MEASURED_QUOTAS) as MeasuredQuota[];

const MOST = Number.MAX_SAFE_INTEGER;
const SIZES: Readonly<Record<string, number>> = { K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };
export const SIZE = /^(\d{1,15})([KMGT])$/;

/** @returns bytes; undefined for what is no size */
export function parseBytes(text: string): number | undefined {
  const [, digits, unit] = SIZE.exec(text) ?? [];
  if (digits === undefined || unit === undefined) return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
  const bytes = Number(digits) * (SIZES[unit] ?? 1);
  return bytes <= MOST ? bytes : undefined;
}
