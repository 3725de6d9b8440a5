import { gzipSync } from "node:zlib";
import { expect, it } from "vitest";
import type { UsageMonth, UsagePosition } from "../../../src/model/usage-month.ts";
import { packed, unpacked, type UsageRecord } from "../../../src/platforms/kubernetes/usage/usage-rows.ts";

function recordOf(n: number): UsageRecord {
  const owner = { tenant: `clinic-${n}`, serverName: `clinic-${n}.example` };
  const runs = [{ run: `run-${n}`, epoch: n + 1, cpuSeconds: 1.25 * n, requests: 7 * n }];
  const position: UsagePosition = {
    ...owner,
    runs,
    usedAt: "2026-01-02T03:04:05.678Z",
    readAt: "2026-01-02T03:00:00.000Z",
  };
  const rows = Array.from({ length: 14 }, (_, index): UsageMonth => {
    const month = `${index < 12 ? 2025 : 2026}-${String((index % 12) + 1).padStart(2, "0")}`;
    const figures = { cpuSeconds: 123.456 + n * index, requests: 1000 * n + index, users: n, mediaBytes: 1e9 + n };
    return { ...owner, month, ...figures, updatedAt: `${month}-28T10:00:00.000Z` };
  });
  return { position, months: new Map(rows.map((row) => [row.month, row])) };
}

it("gives back what was packed, and nothing for a figure that is not known", () => {
  const records = Array.from({ length: 20 }, (_, n) => recordOf(n));
  const back = unpacked(packed(records));
  expect(back).toEqual(records);
  expect(back[3]!.months.get("2025-05")).not.toHaveProperty("activeUsers");
  expect(unpacked(packed([]))).toEqual([]);
});

it("takes a fraction of what Kubernetes takes in an object, for as many tenants as are put into one", () => {
  expect(packed(Array.from({ length: 200 }, (_, n) => recordOf(n))).length).toBeLessThan(256 * 1024);
});

it("refuses what it did not make", () => {
  expect(() => unpacked(Buffer.from("x"))).toThrow("unexpected end of file");
  const text = (value: unknown) => gzipSync(JSON.stringify(value));
  expect(() => unpacked(text({ format: 2, tenants: [] }))).toThrow("format");
  const position = { tenant: "a", serverName: "a.example", runs: [] };
  const row = ["2026-13", "t", ...Array.from({ length: 9 }, () => null)];
  expect(() => unpacked(text({ format: 1, tenants: [{ position, months: [row] }] }))).toThrow("2026-13 is no month");
});
