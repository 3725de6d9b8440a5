import { array, assert, asyncProperty, constantFrom, nat, record } from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import type { AuditEntry } from "../../../../src/api/audit.ts";
import { headIn, packedHead } from "../../../../src/platforms/kubernetes/audit/audit-objects.ts";
import type { Shelf } from "../../../../src/platforms/kubernetes/secret-shelf.ts";
import {
  KubernetesAudit,
  type KubernetesAuditOptions,
} from "../../../../src/platforms/kubernetes/audit/kubernetes-audit.ts";
import { actionsOf, auditEntry, describeAuditLogContract } from "../../../ports/audit-log-contract.ts";
import { FakeShelves, type ShelfCall, type ShelfFault } from "../support/fake-shelf.ts";

const HEAD = "shards.audit";
/** A head holds two or three entries, a block a few heads. */
const SMALL = { headBytes: 700, blockBytes: 700 };

let shelves: FakeShelves;
let problems: string[];
beforeEach(() => {
  shelves = new FakeShelves();
  problems = [];
});

function open(shelf: Shelf = shelves.client(), more: Partial<KubernetesAuditOptions> = {}) {
  // One that goes on after its test is nothing to the next one.
  const own = problems;
  const onProblem = (problem: string) => void own.push(problem);
  return KubernetesAudit.open({ shelf, clusterId: "shards", keepDays: 400, onProblem, ...SMALL, ...more });
}

async function written(log: KubernetesAudit, ...actions: string[]): Promise<boolean[]> {
  const kept: boolean[] = [];
  for (const action of actions) kept.push(await log.append(auditEntry(action)));
  return kept;
}

const numbered = (count: number, from = 0) => Array.from({ length: count }, (_, n) => `action-${from + n}`);

function tamper(change: (lines: string[]) => string[]): void {
  const head = headIn(shelves.objects.get(HEAD)!.data);
  shelves.put(HEAD, packedHead({ ...head, lines: change([...head.lines]) }));
}

describeAuditLogContract("Kubernetes, with an API server made up", async () => ({
  // All of the few that are tampered with are in the head.
  log: await open(undefined, { headBytes: 1000 }),
  reopened: () => open(undefined, { headBytes: 1000 }),
  tamper: async (change) => tamper(change),
  close: async () => {},
}));

describe("a leader that lost the lease", () => {
  it("can add nothing once another leads, and says what it does not have", async () => {
    const former = await open();
    await written(former, "before");
    const leader = await open();
    expect(await written(former, "late", "later")).toEqual([false, false]);
    expect(await written(leader, "after")).toEqual([true]);
    expect(await actionsOf(leader)).toEqual(["before", "after"]);
    expect(problems.join("\n")).toContain("another controller leads");
    expect(problems.join("\n")).toMatch(/"action":"late"[^]*"action":"later"/);
    expect(await leader.verify()).toMatchObject({ entries: 2, breaks: [] });
  });

  it("may be at moving lines to a block meanwhile: none is there twice", async () => {
    let hold: Promise<void> | undefined;
    const slow = shelves.client();
    const former = await open({
      ...slow,
      replace: async (...args) => {
        await hold;
        return slow.replace(...args);
      },
      create: async (...args) => {
        await hold;
        return slow.create(...args);
      },
    });
    await written(former, ...numbered(3));
    let release = () => {};
    hold = new Promise((done) => (release = done));
    const late = written(former, "late");
    const leader = await open();
    expect(await written(leader, ...numbered(5, 3))).toEqual(Array(5).fill(true));
    release();
    expect(await late).toEqual([false]);
    expect(await written(leader, ...numbered(5, 8))).toEqual(Array(5).fill(true));
    expect(await actionsOf(leader)).toEqual(numbered(13));
    expect(await leader.verify()).toMatchObject({ entries: 13, breaks: [] });
  });
});

it("loses nothing that was kept, has nothing twice and breaks no chain, wherever leaders are killed and whatever fails", async () => {
  const step = record({
    appends: nat(8),
    fault: constantFrom<ShelfFault>("before", "after"),
    /** Which of the leader's calls fails. */
    at: nat(20),
    /** All that come after it fail, too. */
    isKilled: constantFrom(true, false),
    /** Entries that come while that call fails. */
    joining: nat(4),
  });
  await assert(
    asyncProperty(array(step, { minLength: 1, maxLength: 6 }), async (leaders) => {
      shelves = new FakeShelves();
      problems = [];
      const kept = new Set<string>();
      let number = 0;
      for (const { appends, fault, at, isKilled, joining } of leaders) {
        let calls = 0;
        let log: KubernetesAudit | undefined;
        const appending: Promise<void>[] = [];
        const append = () => {
          const action = `action-${number++}`;
          const done = log!.append(auditEntry(action)).then((isKept) => void (isKept && kept.add(action)));
          appending.push(done);
          return done;
        };
        const shelf = shelves.client(() => {
          const call = calls++;
          if (call !== at) return isKilled && call > at ? "before" : undefined;
          for (let count = 0; log && count < joining; count++) void append();
          return fault;
        });
        log = await open(shelf, { waitMs: 20, retryDelay: () => 1 }).catch(() => undefined);
        for (let count = 0; log && count < appends; count++) await append();
        await Promise.all(appending);
        void log?.close();
      }
      expect(problems.join("\n")).not.toContain("somebody changed");
      const last = await open();
      const found = await actionsOf(last);
      expect(await last.verify()).toMatchObject({ entries: found.length, breaks: [] });
      expect(new Set(found).size).toBe(found.length);
      expect(found.filter((action) => kept.has(action))).toHaveLength(kept.size);
      expect(found).toEqual(found.toSorted((a, b) => Number(a.slice(7)) - Number(b.slice(7))));
      expect(await actionsOf(last, 5)).toEqual(found.slice(-5));
    }),
    { numRuns: 100 },
  );
});

it.each([1, 3])(
  "knows its own write when the answer was lost and more has come since, with %i entries in the head",
  async (present) => {
    let isLost = false;
    let isAway = false;
    const shelf = shelves.client((call, name) => {
      if (isAway) return "before";
      if (!isLost || call !== "replace" || name !== HEAD) return undefined;
      isAway = true;
      return "after";
    });
    const log = await open(shelf, { retryDelay: () => 5 });
    await written(log, ...numbered(present));
    const { next } = headIn(shelves.objects.get(HEAD)!.data);
    isLost = true;
    const first = log.append(auditEntry("first"));
    await expect.poll(() => isAway).toBe(true);
    const more = ["second", "third"].map((action) => log.append(auditEntry(action)));
    // With three there, the write that is lost moves them to a block.
    expect(headIn(shelves.objects.get(HEAD)!.data).next).toBe(present === 3 ? next + 1 : next);
    isLost = isAway = false;
    expect(await first).toBe(true);
    await Promise.all(more);
    const all = [...numbered(present), "first", "second", "third"];
    await expect.poll(() => actionsOf(log)).toEqual(all);
    await written(log, ...numbered(10, 100));
    expect(await actionsOf(await open())).toEqual([...all, ...numbered(10, 100)]);
    expect(await log.verify()).toMatchObject({ entries: all.length + 10, breaks: [] });
    expect(problems).toEqual([expect.stringContaining("trying again")]);
  },
);

it("holds nobody up while the API server is away, says so once, and writes all of it in order when it is back", async () => {
  let isAway = false;
  const shelf = shelves.client((call: ShelfCall) => (isAway && call !== "read" ? "before" : undefined));
  const log = await open(shelf, { waitMs: 50, retryDelay: () => 5 });
  await written(log, "before");
  isAway = true;
  expect(await written(log, ...numbered(10))).toEqual(Array(10).fill(false));
  expect(problems).toEqual([expect.stringContaining("cannot write to the audit log, trying again")]);
  isAway = false;
  await expect.poll(() => actionsOf(log)).toEqual(["before", ...numbered(10)]);
  expect(await log.verify()).toMatchObject({ entries: 11, breaks: [] });
});

describe("what is kept", () => {
  const at = (day: number) => new Date(Date.UTC(2026, 0, 1 + day)).toISOString();
  const days = async (log: KubernetesAudit, from: number, to: number) => {
    for (let day = from; day < to; day++) await log.append(auditEntry(`action-${day}`, { time: at(day) }));
  };

  it("is removed when it is older than is wanted, and the chain of the rest holds", async () => {
    let day = 0;
    const log = await open(undefined, { keepDays: 20, now: () => Date.parse(at(day)) });
    for (; day < 60; day++) await days(log, day, day + 1);
    const found = await actionsOf(log);
    expect(found.slice(-21)).toEqual(numbered(21, 39));
    expect(found.length).toBeLessThan(40);
    expect(await log.verify()).toMatchObject({ entries: found.length, breaks: [] });
    expect(problems).toEqual([]);
    expect(await actionsOf(await open())).toEqual(found);
  });

  it("takes a bounded number of objects, and says which entries went too early", async () => {
    const log = await open(undefined, { mostBlocks: 3, now: () => Date.parse(at(100)) });
    await days(log, 0, 60);
    expect(shelves.objects.size).toBe(4);
    const found = await actionsOf(log);
    expect(found.at(-1)).toBe("action-59");
    expect(problems[0]).toMatch(/up to 2026-01-\d\dT.* are removed, although they are to be kept for 400 days/);
    expect(await log.verify()).toMatchObject({ entries: found.length, breaks: [] });
  });

  it("has an entry of any length, which fits into an object", async () => {
    const log = await open();
    const changes = Array.from({ length: 2000 }, (_, n) => ({ field: `f${n}`, before: "x".repeat(500), after: null }));
    expect(await log.append(auditEntry("long", { changes }))).toBe(true);
    const found: AuditEntry[] = [];
    for await (const entry of log.read({})) found.push(entry);
    expect(found[0]?.changes).toEqual([
      { field: "(all)", before: null, after: expect.stringContaining("2000 fields") },
    ]);
  });
});

describe("what somebody does to the objects", () => {
  it("shows: a block that is gone, or is no block", async () => {
    const log = await open();
    await written(log, ...numbered(20));
    const block = shelves.objects.get("shards.audit.1")!;
    shelves.objects.delete("shards.audit.1");
    const { breaks } = await log.verify();
    expect(breaks.map(({ problem }) => problem)).toContain("the Secret shards.audit.1 is missing");
    shelves.put("shards.audit.1", { ...block.data, "entries.jsonl.gz": Buffer.from("no gzip") });
    expect((await log.verify()).breaks[0]?.problem).toBe("the Secret shards.audit.1 cannot be read");
    expect((await actionsOf(log)).at(-1)).toBe("action-19");
  });

  it.each([
    ["removed", () => void shelves.objects.delete(HEAD)],
    ["made unreadable", () => void shelves.put(HEAD, { "state.json": Buffer.from("{}") })],
  ])("does not keep the next leader from its work, and shows: a head that was %s", async (_what, act) => {
    await written(await open(), ...numbered(20));
    act();
    const next = await open();
    expect(await written(next, "after")).toEqual([true]);
    const found = await actionsOf(next);
    expect([found[0], found.at(-1)]).toEqual(["action-0", "after"]);
    expect((await next.verify()).breaks).toHaveLength(1);
  });

  it("shows where it is done under a leader that runs, and the leader goes on", async () => {
    const log = await open();
    await written(log, "a", "b");
    tamper(([a, b]) => [a!, b!.replace("ada", "eve")]);
    expect(await written(log, "c")).toEqual([true]);
    expect(problems[0]).toContain("somebody changed the Secret shards.audit");
    expect(await actionsOf(log)).toEqual(["a", "b", "c"]);
    expect((await log.verify()).breaks).toMatchObject([{ entry: 3 }]);
    shelves.objects.delete(HEAD);
    expect(await written(log, "d")).toEqual([true]);
    expect((await actionsOf(log)).slice(-2)).toEqual(["c", "d"]);
  });
});
