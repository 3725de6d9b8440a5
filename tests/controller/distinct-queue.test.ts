import * as fc from "fast-check";
import { expect, test } from "vitest";
import { DistinctQueue } from "../../src/controller/distinct-queue.ts";

test("gives each key once, in the order of a Set", () => {
  const key = fc.integer({ min: 0, max: 5_000 }).map(String);
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ add: fc.array(key, { maxLength: 2_000 }) }) },
    { weight: 1, arbitrary: fc.record({ delete: key }) },
    { weight: 3, arbitrary: fc.record({ take: fc.nat(1_500) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const [queue, set] = [new DistinctQueue(), new Set<string>()];
      const taken: (string | undefined)[] = [];
      const wanted: (string | undefined)[] = [];
      const removed = new Set<string>();
      for (const next of steps) {
        // One that was removed and comes back may have its former place.
        if ("add" in next)
          for (const one of next.add.filter((each) => !removed.has(each))) {
            queue.add(one);
            set.add(one);
          }
        else if ("delete" in next) {
          if (set.has(next.delete)) removed.add(next.delete);
          queue.delete(next.delete);
          set.delete(next.delete);
        } else
          for (let i = 0; i < next.take; i++) {
            const [first] = set;
            if (first !== undefined) set.delete(first);
            taken.push(queue.take());
            wanted.push(first);
          }
        expect(queue.size).toBe(set.size);
      }
      expect(taken).toEqual(wanted);
    }),
    { numRuns: 50 },
  );
});

test("takes back what was removed", () => {
  const queue = new DistinctQueue();
  for (const key of ["a", "b", "c"]) queue.add(key);
  queue.delete("a");
  queue.add("a");
  expect(new Set([queue.take(), queue.take(), queue.take()])).toEqual(new Set(["a", "b", "c"]));
  expect([queue.take(), queue.size]).toEqual([undefined, 0]);
});
