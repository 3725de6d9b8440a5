import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { HistoryStore } from "../../src/ports/history-store.ts";

export interface HistoryStoreUnderTest {
  store: HistoryStore;
  close(): Promise<void>;
}

const MINUTE = 60_000;

/** What all that keeps samples does (the comments of `HistoryStore`). */
export function describeHistoryStoreContract(name: string, open: () => Promise<HistoryStoreUnderTest>): void {
  describe(`${name} as a store of samples`, () => {
    let here: HistoryStoreUnderTest;
    let store: HistoryStore;
    beforeEach(async () => ({ store } = here = await open()));
    afterEach(() => here.close());

    const minute = (at: number, load = at) => ({ step: MINUTE, at: at * MINUTE, count: 1, values: { load } });

    it("gives back those of a level within a time, in their order", async () => {
      await store.write([minute(3), minute(1), minute(2), { ...minute(1), step: 60 * MINUTE, count: 60 }]);
      await store.write([]);
      expect((await store.read(MINUTE, MINUTE, 3 * MINUTE)).map(({ at }) => at / MINUTE)).toEqual([1, 2]);
      expect(await store.read(MINUTE, Number.NEGATIVE_INFINITY, 2 * MINUTE)).toEqual([
        { at: MINUTE, count: 1, values: { load: 1 } },
      ]);
      expect(await store.read(60 * MINUTE, 0, 9 * MINUTE)).toEqual([{ at: MINUTE, count: 60, values: { load: 1 } }]);
      expect(await store.last(MINUTE)).toBe(3 * MINUTE);
      expect(await store.last(7)).toBeUndefined();
    });

    it("has one of a level and a time", async () => {
      await store.write([minute(1, 5)]);
      await store.write([minute(1, 6)]);
      expect((await store.read(MINUTE, 0, 9 * MINUTE)).map(({ values }) => values["load"])).toEqual([6]);
    });

    it("removes those of a level that are too old, or are yet to come", async () => {
      await store.write([...[1, 2, 3, 4].map((at) => minute(at)), { ...minute(1), step: 60 * MINUTE }]);
      await store.prune(MINUTE, 2 * MINUTE, 4 * MINUTE);
      expect((await store.read(MINUTE, 0, 9 * MINUTE)).map(({ at }) => at / MINUTE)).toEqual([2, 3]);
      expect((await store.read(60 * MINUTE, 0, 9 * MINUTE)).length).toBe(1);
    });
  });
}
