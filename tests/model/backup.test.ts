import { describe, expect, it } from "vitest";
import { backupAt, backupIdOf, BackupsConfigSchema, expired } from "../../src/model/backup.ts";

const DAY = 86_400_000;
const NOW = Date.parse("2026-03-01T00:00:00Z");
const backups = Array.from({ length: 10 }, (_, age) => {
  const time = NOW - age * DAY;
  return { id: backupIdOf(time), takenAt: new Date(time).toISOString() };
});
const ages = (found: { takenAt: string }[]) => found.map(({ takenAt }) => (NOW - Date.parse(takenAt)) / DAY);

describe("retention", () => {
  it("removes what is neither among the newest nor young enough", () => {
    expect(ages(expired(backups, { keepLast: 3, keepDays: 5, keepOfTenantAdmins: 1 }, NOW))).toEqual([6, 7, 8, 9]);
    expect(ages(expired(backups, { keepLast: 8, keepDays: 0, keepOfTenantAdmins: 1 }, NOW))).toEqual([8, 9]);
  });
  it("keeps few of those that tenant admins asked for, which push out no others", () => {
    const by = "tenant-admin" as const;
    const all = backups.map((backup, age) => (age % 2 === 0 ? { ...backup, by } : backup));
    const retention = { keepLast: 3, keepDays: 0, keepOfTenantAdmins: 2 };
    expect(ages(expired(all, retention, NOW))).toEqual([7, 9, 4, 6, 8]);
  });
  it("keeps the newest however old they are", () => {
    expect(expired(backups, { keepLast: 10, keepDays: 0, keepOfTenantAdmins: 1 }, NOW + 1000 * DAY)).toEqual([]);
  });
});

it("chooses the newest backup that has nothing of after a time", () => {
  expect(ages([backupAt(backups)!])).toEqual([0]);
  expect(ages([backupAt(backups, NOW - 2.5 * DAY)!])).toEqual([3]);
  expect(backupAt(backups, NOW - 100 * DAY)).toBeUndefined();
});

describe("the configuration", () => {
  const good = { target: { directory: "/srv/backups" }, recipient: `age1${"q".repeat(58)}` };
  it("is a target and a recipient; the rest has defaults", () => {
    expect(BackupsConfigSchema.parse(good)).toMatchObject({
      retention: { keepLast: 7, keepDays: 30, keepOfTenantAdmins: 3 },
      tenants: {},
    });
  });
  it.each([
    ["a schedule that never comes about", { ...good, schedule: "0 0 31 2 *" }],
    ["a schedule with seconds", { ...good, schedule: "0 0 3 * * *" }],
    ["a private key for a recipient", { ...good, recipient: "AGE-SECRET-KEY-1QQ" }],
    ["a relative directory", { ...good, target: { directory: "backups" } }],
    ["a directory and a bucket", { ...good, target: { directory: "/b", bucket: "b", credentialsFile: "/c" } }],
    ["no recipient", { target: good.target }],
  ])("refuses %s", (_what, config) => {
    expect(BackupsConfigSchema.safeParse(config).success).toBe(false);
  });
});
