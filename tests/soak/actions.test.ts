import { assert, integer, property } from "fast-check";
import { expect, test } from "vitest";
import { after, describe, isGraceful, steps, type Step } from "../../soak/actions.ts";
import { Random } from "../../soak/random.ts";

const seeds = integer({ min: 0, max: 2 ** 32 - 1 });

function first(count: number, options: { seed: number; tenants: number }): Step[] {
  const found: Step[] = [];
  for (const step of steps(options)) {
    found.push(step);
    if (found.length === count) break;
  }
  return found;
}

test("the same seed gives the same steps, another one others", () => {
  expect(first(60, { seed: 7, tenants: 6 })).toEqual(first(60, { seed: 7, tenants: 6 }));
  expect(first(60, { seed: 7, tenants: 6 })).not.toEqual(first(60, { seed: 8, tenants: 6 }));
});

test("each action comes within a few hundred steps", () => {
  const found = new Set(
    first(400, { seed: 1, tenants: 6 }).flatMap(({ actions }) =>
      actions.map(({ action }) => ("part" in action ? action.part : action.type)),
    ),
  );
  const every = [
    "create",
    "delete",
    "move",
    "drain",
    "upgrade",
    "configure",
    "rest",
    "use",
    "sleep",
    "wake",
    "killShard",
    "pauseShard",
    "restart",
    "controller",
    "gateway",
    "up",
    "postgres",
  ];
  expect([...found].toSorted()).toEqual(every.toSorted());
});

/** What is wrong with a sequence of steps, were a cluster asked to do it. */
function mistakesIn(found: Step[]): string[] {
  const mistakes: string[] = [];
  const standing = new Set<string>();
  const resting = new Set<string>();
  for (const { number, actions, wishes, graceful } of found) {
    const named = actions.flatMap(({ action }) => ("tenant" in action ? [action.tenant] : []));
    // Two wishes for one tenant in one step would make its outcome a matter of timing.
    if (new Set(named).size < named.length) mistakes.push(`step ${number} has two wishes for one tenant`);
    for (const { action } of actions) {
      if ("tenant" in action && standing.has(action.tenant) === (action.type === "create"))
        mistakes.push(`step ${number}: ${describe(action)}`);
      if (action.type === "rest" || action.type === "use") {
        if (resting.has(action.tenant) === (action.type === "rest"))
          mistakes.push(`step ${number}: ${describe(action)}`);
        if (action.type === "rest") resting.add(action.tenant);
        else resting.delete(action.tenant);
      }
      if (action.type === "delete") resting.delete(action.tenant);
      if (action.type === "create") standing.add(action.tenant);
      if (action.type === "delete") standing.delete(action.tenant);
    }
    const present = Object.keys(wishes).filter((name) => wishes[name]?.state === "present");
    if (present.toSorted().join() !== [...standing].toSorted().join())
      mistakes.push(`step ${number} wishes ${present.join()}`);
    if (graceful !== actions.every(({ action }) => isGraceful(action)))
      mistakes.push(`step ${number} is not as gentle as it says`);
  }
  return mistakes;
}

test("only what is there is changed or deleted, only what is missing is created", () => {
  const law = property(seeds, integer({ min: 2, max: 9 }), (seed, tenants) => {
    expect(mistakesIn(first(50, { seed, tenants }))).toEqual([]);
  });
  assert(law, { numRuns: 50 });
});

test("each action changes what it is about, and nothing else", () => {
  const wishes = first(1, { seed: 1, tenants: 2 })[0]!.wishes;
  const created = after(wishes, { type: "create", tenant: "t-0", version: "1.157.2", uploadMegabytes: 3 });
  expect(created).toEqual({
    ...wishes,
    "t-0": { state: "present", version: "1.157.2", uploadMegabytes: 3, resting: false },
  });
  const resting = after(created, { type: "rest", tenant: "t-0", laterSeconds: 8 });
  expect(resting["t-0"]).toMatchObject({ state: "present", resting: true });
  expect(after(resting, { type: "use", tenant: "t-0" })).toEqual(created);
  expect(after(resting, { type: "delete", tenant: "t-0", purge: false })["t-0"]).toMatchObject({ resting: false });
  expect(after(created, { type: "sleep", who: "t-0" })).toEqual(created);
  expect(after(created, { type: "upgrade", tenant: "t-0", version: "1.163.2" })["t-0"]).toMatchObject({
    version: "1.163.2",
    state: "present",
  });
  expect(after(created, { type: "configure", tenant: "t-0", uploadMegabytes: 9 })["t-0"]).toMatchObject({
    uploadMegabytes: 9,
  });
  expect(after(created, { type: "delete", tenant: "t-0", purge: false })["t-0"]).toMatchObject({ state: "kept" });
  expect(after(created, { type: "delete", tenant: "t-0", purge: true })["t-0"]).toMatchObject({ state: "absent" });
  expect(after(created, { type: "kill", part: "up" })).toEqual(created);
});

test("numbers stay in their range, and weights of 0 are never taken", () => {
  const law = property(seeds, (seed) => {
    const random = new Random(seed);
    const numbers = Array.from({ length: 50 }, () => random.whole(3, 5));
    expect(numbers.filter((number) => ![3, 4, 5].includes(number))).toEqual([]);
    const keys = Array.from({ length: 50 }, () => random.weighted({ never: 0, seldom: 1, often: 9 }));
    expect(keys).not.toContain("never");
  });
  assert(law);
});
