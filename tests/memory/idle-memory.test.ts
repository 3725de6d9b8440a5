import { getHeapStatistics } from "node:v8";
import { describe, expect, it } from "vitest";
import { collect, type Look, shouldCollect } from "../../src/memory/idle-memory.ts";

const MIB = 1024 ** 2;
const look = (change: Partial<Look> = {}): Look => ({
  at: 600_000,
  utilization: 0.01,
  taken: 60 * MIB,
  used: 30 * MIB,
  ...change,
});

describe("when an idle process gives memory back", () => {
  it("does so once it is idle after its start", () => {
    expect(shouldCollect(look({ at: 30_000 }), undefined)).toBe(true);
  });

  it("waits while there is work", () => {
    expect(shouldCollect(look({ utilization: 0.2 }), undefined)).toBe(false);
  });

  it("leaves a large heap alone, where a collection would be noticed", () => {
    expect(shouldCollect(look({ used: 300 * MIB, taken: 900 * MIB }), undefined)).toBe(false);
  });

  it("does so again when the heap has grown, and not within five minutes", () => {
    const taken = 32 * MIB;
    expect(shouldCollect(look(), { at: 0, taken })).toBe(true);
    expect(shouldCollect(look(), { at: 400_000, taken })).toBe(false);
    expect(shouldCollect(look({ taken: taken + 4 * MIB }), { at: 0, taken })).toBe(false);
  });
});

describe("a collection", () => {
  it("returns what nothing is in", () => {
    let garbage: object[] | undefined = Array.from({ length: 400_000 }, (_, index) => ({
      index,
      text: `text ${index}`,
    }));
    const before = getHeapStatistics().total_physical_size;
    expect(garbage).toHaveLength(400_000);
    garbage = undefined;
    collect();
    expect(before - getHeapStatistics().total_physical_size).toBeGreaterThan(16 * MIB);
  });

  it("leaves new contexts without a collector", async () => {
    collect();
    const { runInNewContext } = await import("node:vm");
    expect(runInNewContext("typeof gc")).toBe("undefined");
  });
});
