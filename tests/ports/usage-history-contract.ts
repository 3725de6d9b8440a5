import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UsageMonth, UsagePosition } from "../../src/model/usage-month.ts";
import type { UsageHistory } from "../../src/ports/usage-history.ts";

export interface HistoryUnderTest {
  history: UsageHistory;
  /** As a process finds it that starts after this one was killed. */
  reopened(): Promise<UsageHistory>;
  close(): Promise<void>;
}

function position(tenant: string, more: Partial<UsagePosition> = {}): UsagePosition {
  return {
    tenant,
    serverName: `${tenant}.example`,
    runs: [{ run: "r", epoch: 1, cpuSeconds: 1, requests: 2 }],
    ...more,
  };
}

function month(tenant: string, of: string, requests = 1): UsageMonth {
  const updatedAt = "2026-01-01T00:00:00.000Z";
  return { tenant, serverName: `${tenant}.example`, month: of, cpuSeconds: 1.5, requests, updatedAt };
}

/** What all that keeps a history of usage does (the comments of `UsageHistory`). */
export function describeUsageHistoryContract(name: string, open: () => Promise<HistoryUnderTest>): void {
  describe(`${name} as a history of usage`, () => {
    let here: HistoryUnderTest;
    let history: UsageHistory;
    beforeEach(async () => ({ history } = here = await open()));
    afterEach(() => here.close());

    it("gives back what was written, by tenant and month, and after a restart", async () => {
      await history.write([
        { position: position("b"), months: [month("b", "2026-02"), month("b", "2026-01")] },
        { position: position("a"), months: [month("a", "2026-01")] },
      ]);
      for (const found of [history, await here.reopened()]) {
        expect(await found.list()).toEqual([month("a", "2026-01"), month("b", "2026-01"), month("b", "2026-02")]);
        expect(await found.list("b")).toEqual([month("b", "2026-01"), month("b", "2026-02")]);
        expect(await found.position(position("a"))).toEqual(position("a"));
      }
      expect(await history.list("c")).toEqual([]);
      expect(await history.position({ tenant: "a", serverName: "other.example" })).toBeUndefined();
    });

    it("gives what is needed to fill in one month of all tenants", async () => {
      const of = async (month: string) =>
        (await history.around(month)).map((row) => `${row.tenant} ${row.month}`).toSorted();
      await history.write([
        { position: position("a"), months: ["2025-11", "2026-01", "2026-03", "2026-04"].map((one) => month("a", one)) },
        { position: position("b"), months: [month("b", "2026-02")] },
        { position: position("c"), months: [] },
      ]);
      expect(await of("2026-02")).toEqual(["a 2026-01", "a 2026-03", "b 2026-02"]);
      expect(await of("2026-01")).toEqual(["a 2026-01", "a 2026-03", "b 2026-02"]);
      expect(await of("2026-05")).toEqual(["a 2026-04", "b 2026-02"]);
      expect(await of("2025-01")).toEqual(["a 2025-11", "b 2026-02"]);
    });

    it("has one row per tenant and month, and one place per tenant, however often they are written", async () => {
      for (const requests of [1, 2, 3])
        await history.write([
          { position: position("a", { messagesTo: requests }), months: [month("a", "2026-01", requests)] },
        ]);
      await history.write([]);
      expect(await history.list()).toEqual([month("a", "2026-01", 3)]);
      expect(await history.position(position("a"))).toMatchObject({ messagesTo: 3 });
      expect(await history.owners()).toEqual([{ tenant: "a", serverName: "a.example" }]);
    });

    it("writes all of it or nothing", async () => {
      await history.write([{ position: position("a"), months: [month("a", "2026-01")] }]);
      const bad = {
        position: position("b"),
        months: [{ ...month("b", "2026-01"), month: undefined as unknown as string }],
      };
      await expect(
        history.write([{ position: position("a", { messagesTo: 9 }), months: [month("a", "2026-01", 9)] }, bad]),
      ).rejects.toBeInstanceOf(Error);
      expect(await history.list()).toEqual([month("a", "2026-01")]);
      expect(await history.position(position("a"))).toEqual(position("a"));
    });

    it("knows whose databases are to be asked: of those that were used since, or were never asked", async () => {
      const [early, late] = ["2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"];
      const cases: Record<string, Partial<UsagePosition>> = {
        never: {},
        "used-only": { usedAt: early },
        "read-only": { readAt: early },
        "used-since": { usedAt: late, readAt: early },
        "read-since": { usedAt: early, readAt: late },
      };
      for (const [tenant, more] of Object.entries(cases))
        await history.write([{ position: position(tenant, more), months: [] }]);
      expect((await history.unread()).map(({ tenant }) => tenant)).toEqual(["never", "used-only", "used-since"]);
    });

    it("removes what is too old, but keeps the newest row of a tenant that is there", async () => {
      const months = (tenant: string, ...of: string[]) => of.map((one) => month(tenant, one));
      await history.write([
        { position: position("awake"), months: months("awake", "2025-01", "2026-02") },
        { position: position("asleep"), months: months("asleep", "2024-01", "2025-01") },
        { position: position("deleted"), months: months("deleted", "2024-01", "2025-01") },
        { position: position("kept"), months: months("kept", "2025-01", "2026-01") },
      ]);
      for (let turn = 0; turn < 2; turn++)
        await history.prune(
          "2026-01",
          ({ tenant, serverName }) => serverName === `${tenant}.example` && tenant.startsWith("a"),
        );
      expect((await history.list()).map((row) => `${row.tenant} ${row.month}`)).toEqual([
        "asleep 2025-01",
        "awake 2026-02",
        "kept 2026-01",
      ]);
      expect((await history.owners()).map(({ tenant }) => tenant)).toEqual(["asleep", "awake", "kept"]);
    });
  });
}
