import { array, assert, constantFrom, nat, property, record, string, uniqueArray } from "fast-check";
import { expect, test } from "vitest";
import { KeptOrder, mergedOrder } from "../../src/model/kept-order.ts";

interface Item {
  id: string;
  key: string;
}

const byKey = (items: readonly Item[], sign = 1) =>
  items.toSorted((a, b) => (a.key === b.key ? 0 : a.key < b.key ? -sign : sign));
const byId = (items: readonly Item[]) => items.toSorted((a, b) => (a.id < b.id ? -1 : 1));

test("is the plain sort, whatever comes, goes and changes from one time to the next", () => {
  const items = uniqueArray(record({ id: string({ maxLength: 3 }), key: constantFrom("a", "b", "c", "", "ä", "Z") }), {
    selector: ({ id }) => id,
    maxLength: 40,
  });
  // Few keys of many change at a time, or all of them do.
  const change = record({
    gone: array(nat(39), { maxLength: 5 }),
    changed: array(record({ at: nat(39), key: string({ maxLength: 2 }) }), { maxLength: 5 }),
    come: items,
  });
  assert(
    property(items, array(change, { maxLength: 5 }), (first, changes) => {
      const kept = new KeptOrder<Item>(
        ({ id }) => id,
        ({ key }) => key,
      );
      let now = byId(first);
      const ordered = (isDescending?: boolean) => kept.of(now, isDescending).map((place) => now[place]);
      expect(ordered()).toEqual(byKey(now));
      for (const { gone, changed, come } of changes) {
        const keys = new Map(changed.map(({ at, key }) => [at, key]));
        const stay = now
          .map((item, at) => ({ ...item, key: keys.get(at) ?? item.key }))
          .filter((_, at) => !gone.includes(at));
        const ids = new Set(stay.map(({ id }) => id));
        now = byId([...stay, ...come.filter(({ id }) => !ids.has(id)).slice(0, 3)]);
        expect(ordered()).toEqual(byKey(now));
        expect(ordered(true)).toEqual(byKey(now, -1));
      }
    }),
  );
});

test("two that are in order are one in order", () => {
  assert(
    property(array(nat(20)), array(nat(20)), (a, b) => {
      const [first, second] = [a, b].map((one) => one.toSorted((x, y) => x - y)) as [number[], number[]];
      expect(mergedOrder(first, second, (x, y) => x <= y)).toEqual([...a, ...b].toSorted((x, y) => x - y));
    }),
  );
});
