import { array, assert, constant, nat, oneof, property, record, type Arbitrary } from "fast-check";
import { describe, expect, it } from "vitest";
import {
  beginOf,
  changedMonths,
  counted,
  filledMonths,
  isMonth,
  monthBefore,
  monthOf,
  newAccount,
  oldestMonth,
  withEnd,
  withEpoch,
  withRate,
  withReading,
  type UsageAccount,
  type UsageMonth,
} from "../../src/model/usage-month.ts";

const OWNER = { tenant: "a", serverName: "a.example" };
const JANUARY = beginOf("2026-01");
const DAY = 86_400_000;

const row = (month: string, more: Partial<UsageMonth> = {}): UsageMonth => ({
  ...OWNER,
  month,
  cpuSeconds: 1,
  requests: 1,
  updatedAt: `${month}-02T00:00:00.000Z`,
  ...more,
});

const total = (account: UsageAccount) => {
  const months = Object.values(account.months);
  return {
    cpuSeconds: months.reduce((sum, month) => sum + month.cpuSeconds, 0),
    requests: months.reduce((sum, month) => sum + month.requests, 0),
  };
};

/** What happens to a tenant, and to the controller that looks at it. */
type Step =
  | { do: "work"; on: number; requests: number }
  | { do: "look"; on: number }
  /** An answer that was on its way for long. */
  | { do: "lateLook"; on: number }
  | { do: "end"; on: number }
  | { do: "crash" }
  | { do: "write" }
  | { do: "pass"; days: number };

const on = nat(2);
const step: Arbitrary<Step> = oneof(
  record({ do: constant("work" as const), on, requests: nat(50) }),
  record({ do: constant("look" as const), on }),
  record({ do: constant("lateLook" as const), on }),
  record({ do: constant("end" as const), on }),
  record({ do: constant("crash" as const) }),
  record({ do: constant("write" as const) }),
  record({ do: constant("pass" as const), days: nat(40) }),
);

describe("what is counted", () => {
  /** @returns the account after all that, what was taken in truth, and whether a sum ever fell */
  function lived(steps: readonly Step[], mostStarts: number) {
    let at = JANUARY;
    let number = 0;
    const started = () => ({ run: `run-${++number}`, epoch: number, requests: 0, cpuSeconds: 0, before: 0 });
    // Two shards at once in a move, and a stray.
    const places = [started(), started(), started()];
    let [account, written] = [newAccount(OWNER), newAccount(OWNER)];
    let [took, fell] = [0, false];
    const look = (place: number) => {
      account = counted(account, at, places[place]!);
    };
    for (const now of steps) {
      const before = total(account).requests;
      if (now.do === "work") {
        const run = places[now.on]!;
        [run.before, run.requests] = [run.requests, run.requests + now.requests];
        run.cpuSeconds = run.requests / 4;
        took += now.requests;
      } else if (now.do === "look") look(now.on);
      else if (now.do === "lateLook") {
        const run = places[now.on]!;
        account = counted(account, at, { ...run, requests: run.before, cpuSeconds: run.before / 4 });
      } else if (now.do === "end" && number < mostStarts) {
        // With its last figures, which are written at once.
        look(now.on);
        written = account;
        places[now.on] = started();
      } else if (now.do === "crash") account = written;
      else if (now.do === "write") written = account;
      else if (now.do === "pass") at += now.days * DAY;
      fell ||= now.do !== "crash" && total(account).requests < before;
    }
    for (const place of places.keys()) look(place);
    return { account, took, fell };
  }
  const life = array(step, { minLength: 40, maxLength: 80 });
  // As many as it takes to find a late look that lowers a sum, every time.
  const often = { numRuns: 500 };

  it("is what the starts of a tenant took together, in whatever order they run, are looked at, end, and the controller crashes", () => {
    assert(
      property(life, (steps) => {
        const { account, took, fell } = lived(steps, 8);
        expect(fell).toBe(false);
        expect(total(account).requests).toBe(took);
        expect(total(account).cpuSeconds).toBeCloseTo(took / 4, 6);
      }),
      often,
    );
  });

  it("is never more than that, also where a shard comes back after many starts elsewhere", () => {
    assert(
      property(life, (steps) => {
        const { account, took, fell } = lived(steps, Infinity);
        expect(fell).toBe(false);
        expect(total(account).requests).toBeLessThanOrEqual(took);
      }),
      often,
    );
  });

  it("goes on with each process of a shard that comes up again and again with one epoch", () => {
    let account = newAccount(OWNER);
    for (let run = 0; run < 30; run++)
      account = counted(account, JANUARY, { run: `${run}`, epoch: 5, cpuSeconds: 1, requests: 1 });
    expect(total(account)).toEqual({ cpuSeconds: 30, requests: 30 });
  });

  it("of a tenant that was made again begins with its first epoch, however many starts there were before", () => {
    for (const starts of [1, 8, 9, 30]) {
      let account = newAccount(OWNER);
      for (let run = 1; run <= starts; run++) {
        account = withEpoch(account, run);
        account = counted(account, JANUARY, { run: `${run}`, epoch: run, cpuSeconds: 1, requests: 1 });
      }
      // Its end is not the end of a shard that still has it.
      account = withEpoch(account, 0);
      account = counted(account, JANUARY, { run: `${starts}`, epoch: starts, cpuSeconds: 1, requests: 1 });
      expect(total(account).requests).toBe(starts);
      for (const requests of [1, 2, 3])
        account = counted(withEpoch(account, 1), JANUARY, { run: "again", epoch: 1, cpuSeconds: 1, requests });
      // From one start on it cannot be told apart, and need not be.
      expect(total(account).requests).toBe(starts + 3);
    }
  });

  it("belongs to the month, in UTC, in which it was seen", () => {
    const run = { run: "r", epoch: 1, cpuSeconds: 2, requests: 20 };
    let account = counted(newAccount(OWNER), beginOf("2026-02") - 1, run);
    account = counted(account, beginOf("2026-02"), { ...run, cpuSeconds: 5, requests: 50 });
    expect(account.months).toMatchObject({
      "2026-01": { cpuSeconds: 2, requests: 20 },
      "2026-02": { cpuSeconds: 3, requests: 30 },
    });
  });

  it("keeps few starts in mind, however many there were", () => {
    let account = newAccount(OWNER);
    for (let run = 0; run < 100; run++)
      account = counted(account, JANUARY, { run: `${run}`, epoch: run + 1, cpuSeconds: 1, requests: 1 });
    expect(account.position.runs).toHaveLength(8);
    expect(total(account)).toEqual({ cpuSeconds: 100, requests: 100 });
  });

  it("is worth a write when it says something new, and not for what an idle tenant takes", () => {
    const before = counted(newAccount(OWNER), JANUARY, { run: "r", epoch: 1, cpuSeconds: 1, requests: 1 });
    const idle = counted(before, JANUARY + 1, { run: "r", epoch: 1, cpuSeconds: 1.9, requests: 1 });
    expect(changedMonths(before, idle)).toEqual([]);
    expect(
      changedMonths(before, counted(idle, JANUARY + 2, { run: "r", epoch: 1, cpuSeconds: 2, requests: 1 })),
    ).toHaveLength(1);
    expect(
      changedMonths(before, counted(idle, JANUARY + 2, { run: "r", epoch: 1, cpuSeconds: 1.9, requests: 2 })),
    ).toHaveLength(1);
    const bytes = withReading(before, JANUARY, { databaseBytes: 1_000_000 });
    expect(changedMonths(bytes, withReading(bytes, JANUARY, { databaseBytes: 1_009_000 }))).toEqual([]);
    expect(changedMonths(bytes, withReading(bytes, JANUARY, { databaseBytes: 1_011_000 }))).toHaveLength(1);
  });

  it("has the highest rate of the month", () => {
    let account = withRate(newAccount(OWNER), JANUARY, 10.4);
    account = withRate(account, JANUARY + 1, 3);
    expect(account.months["2026-01"]?.peakRequestsPerMinute).toBe(10);
    expect(withRate(account, beginOf("2026-02"), 3).months["2026-02"]?.peakRequestsPerMinute).toBe(3);
  });
});

describe("what a database says", () => {
  it("counts messages into the months in which they were received, and users of now into this one", () => {
    let account = counted(newAccount(OWNER), JANUARY, { run: "r", epoch: 1, cpuSeconds: 1, requests: 1 });
    const february = beginOf("2026-02") + DAY;
    account = withReading(account, february, {
      users: 3,
      mediaBytes: 7,
      active: [
        { month: "2026-01", activeUsers: 2, activeUsersDailyPeak: 1 },
        { month: "2026-02", activeUsers: 1, activeUsersDailyPeak: 1 },
      ],
      messages: {
        from: undefined,
        to: 9,
        sent: [
          { month: "2026-01", count: 4 },
          { month: "2026-02", count: 5 },
        ],
      },
    });
    account = withReading(account, february, { messages: { from: 9, to: 12, sent: [{ month: "2026-02", count: 2 }] } });
    expect(account.position).toMatchObject({ messagesTo: 12, readAt: "2026-02-02T00:00:00.000Z" });
    expect(account.months).toMatchObject({
      "2026-01": { messages: 4, activeUsers: 2 },
      "2026-02": { messages: 7, activeUsers: 1, users: 3, mediaBytes: 7 },
    });
    expect(account.months["2026-01"]?.users).toBeUndefined();
  });

  it("counts messages once that two looks at the same time have found", () => {
    const messages = { from: undefined, to: 9, sent: [{ month: "2026-01", count: 4 }] };
    const once = withReading(newAccount(OWNER), JANUARY, { messages });
    const twice = withReading(once, JANUARY, { messages, users: 2 });
    expect(twice.months["2026-01"]).toMatchObject({ messages: 4, users: 2 });
    const next = { from: 9, to: 11, sent: [{ month: "2026-01", count: 1 }] };
    expect(withReading(twice, JANUARY, { messages: next }).months["2026-01"]?.messages).toBe(5);
  });

  it("is complete only up to the time that it says", () => {
    const used = counted(newAccount(OWNER), JANUARY + DAY, { run: "r", epoch: 1, cpuSeconds: 1, requests: 1 });
    const { usedAt, readAt } = withReading(used, JANUARY + DAY + 1, {}, JANUARY + DAY - 1).position;
    expect(usedAt! > readAt!).toBe(true);
  });

  it("says nothing of months before the tenant was here, nor of those to come", () => {
    const account = withReading(newAccount(OWNER), JANUARY, {
      active: [{ month: "2025-12", activeUsers: 5, activeUsersDailyPeak: 5 }],
      messages: {
        from: undefined,
        to: 5,
        sent: ["2025-12", "2026-01", "2030-01"].map((month) => ({ month, count: 5 })),
      },
    });
    expect(Object.values(account.months).map(({ month, messages }) => [month, messages])).toEqual([["2026-01", 5]]);
  });

  it("leaves out what it could not say, and keeps what was known", () => {
    const known = withReading(newAccount(OWNER), JANUARY, { users: 3, databaseBytes: 9 });
    expect(withReading(known, JANUARY + DAY, {}).months["2026-01"]).toEqual(known.months["2026-01"]);
    expect(newAccount(OWNER).months).toEqual({});
  });
});

describe("months", () => {
  it("are counted back over years", () => {
    expect(monthBefore("2026-01")).toBe("2025-12");
    expect(oldestMonth(beginOf("2026-03") + 30 * DAY)).toBe("2025-03");
    expect(monthOf(beginOf("2024-03") - 1)).toBe("2024-02");
    expect(["2026-01", "2026-12", "2026-13", "2026-00", "26-01", "2026-1", "2026-01-01"].filter(isMonth)).toEqual([
      "2026-01",
      "2026-12",
    ]);
  });

  it("in which a tenant slept have what it has, and nothing that it did", () => {
    const rows = [
      row("2026-01", { users: 3, databaseBytes: 9, messages: 4, activeUsers: 2, peakRequestsPerMinute: 8 }),
    ];
    const asked = ["2025-12", "2026-01", "2026-02"];
    const found = filledMonths(rows, () => true, asked);
    expect(found.map(({ month }) => month)).toEqual(["2026-01", "2026-02"]);
    expect(found[1]).toEqual({
      ...row("2026-02", { users: 3, databaseBytes: 9, messages: 0, activeUsers: 0, activeUsersDailyPeak: 0 }),
      cpuSeconds: 0,
      requests: 0,
      updatedAt: rows[0]?.updatedAt,
    });
    // A deleted one has nothing after its end.
    expect(filledMonths(rows, () => false, asked).map(({ month }) => month)).toEqual(["2026-01"]);
    expect(filledMonths([...rows, row("2026-03")], () => false, ["2026-02"])).toHaveLength(1);
  });

  it("keep tenants apart that had one name after the other", () => {
    const other = row("2026-01", { serverName: "b.example", users: 100 });
    const found = filledMonths([row("2026-01"), other], ({ serverName }) => serverName === "b.example", ["2026-02"]);
    expect(found.map(({ serverName, users }) => [serverName, users])).toEqual([["b.example", 100]]);
  });

  it("of a tenant that ends are filled up to its end", () => {
    const slept = { ...newAccount(OWNER), months: { "2026-01": row("2026-01", { users: 3 }) } };
    const ended = withEnd(slept, beginOf("2026-03"));
    const found = filledMonths(Object.values(ended.months), () => false, ["2026-01", "2026-02", "2026-03", "2026-04"]);
    expect(found.map(({ month, users }) => [month, users])).toEqual([
      ["2026-01", 3],
      ["2026-02", 3],
      ["2026-03", 3],
    ]);
    expect(withEnd(newAccount(OWNER), JANUARY).months).toEqual({});
  });
});
