import { describe, expect, test } from "vitest";
import { HistoryRecorder } from "../../../src/controller/history/history-recorder.ts";
import { MemoryHistory } from "../../../src/controller/history/memory-history.ts";
import { valuesOf } from "../../../src/controller/history/sample.ts";
import { SteadyClock } from "../../../src/model/clock.ts";
import { LEVELS } from "../../../src/model/history.ts";
import { DEFAULT_POLICY } from "../../../src/model/policy.ts";
import { newTenantStatus, type Tenant, type TenantStatus } from "../../../src/model/tenant.ts";
import { FakeTime } from "../../support/fake-clock.ts";

const MINUTE = 60_000;
const [, HOURS, DAYS] = LEVELS;

function recorded(store = new MemoryHistory(), wall = Date.parse("2026-11-27T11:58:00Z")) {
  const time = new FakeTime(wall);
  const warnings: unknown[] = [];
  const log = { warn: (...said: unknown[]) => void warnings.push(said) } as never;
  const recorder = new HistoryRecorder({ store, clock: new SteadyClock(time), log });
  const looks: string[] = [];
  let load = 0;
  recorder.start((since) => {
    looks.push(since);
    return { load: (load += 1), moves: 1 };
  });
  /** A minute passes, and what it brings is done. */
  const minutes = async (count: number) => {
    for (let index = 0; index < count; index += 1) {
      time.pass(MINUTE);
      for (let turn = 0; turn < 40; turn += 1) await Promise.resolve();
    }
  };
  return { store, time, recorder, looks, minutes, warnings };
}

describe("the recorder of the history", () => {
  test("looks once a minute, at what happened since the last look", async () => {
    const { store, minutes, looks, recorder } = recorded();
    await minutes(3);
    expect(looks).toEqual(["2026-11-27T11:58:00.000Z", "2026-11-27T11:59:00.000Z", "2026-11-27T12:00:00.000Z"]);
    const kept = await store.read(MINUTE, 0, Number.MAX_SAFE_INTEGER);
    expect(kept.map(({ at }) => new Date(at).toISOString())).toEqual([
      "2026-11-27T11:58:00.000Z",
      "2026-11-27T11:59:00.000Z",
      "2026-11-27T12:00:00.000Z",
    ]);
    await recorder.close();
    await minutes(1);
    expect(looks.length).toBe(3);
  });

  test("makes hours and days as they end, and answers from all levels together", async () => {
    const { store, minutes, recorder } = recorded();
    await minutes(26 * 60);
    const hours = await store.read(HOURS.step, 0, Number.MAX_SAFE_INTEGER);
    expect(hours.length).toBe(26);
    expect(hours[1]).toMatchObject({ count: 60, values: { moves: 60 } });
    const days = await store.read(DAYS.step, 0, Number.MAX_SAFE_INTEGER);
    expect(days.map(({ at }) => new Date(at).toISOString())).toEqual(["2026-11-27T00:00:00.000Z"]);
    expect((await store.read(MINUTE, 0, Number.MAX_SAFE_INTEGER)).length).toBeLessThanOrEqual(25 * 60 + 1);
    for (const range of ["week", "month", "year"] as const) {
      const { series } = await recorder.read(range);
      const moves = series.find(({ name }) => name === "moves")!.values;
      expect(moves.reduce((sum: number, value) => sum + (value ?? 0), 0)).toBe(26 * 60);
    }
    await recorder.close();
  });

  test("goes on after a restart, with a gap where it was away, and makes the hour of what there is", async () => {
    const before = recorded();
    await before.minutes(20);
    await before.recorder.close();
    const { recorder, minutes, time } = recorded(before.store, Date.parse("2026-11-27T12:40:00Z"));
    await minutes(30);
    const { series, from } = await recorder.read("hour");
    const load = series.find(({ name }) => name === "load")!.values;
    const known = load.flatMap((value, index) =>
      value === null ? [] : [new Date(Date.parse(from) + index * MINUTE).toISOString().slice(11, 16)],
    );
    expect(known).toContain("12:17");
    expect(known).not.toContain("12:18");
    expect(known).toContain("12:40");
    const hours = await before.store.read(HOURS.step, 0, Number.MAX_SAFE_INTEGER);
    expect(hours.map(({ count }) => count)).toEqual([2, 38]);
    expect(time.wall()).toBe(Date.parse("2026-11-27T13:10:00Z"));
    await recorder.close();
  });

  test("removes what a clock that was ahead has left", async () => {
    const store = new MemoryHistory();
    const ahead = Date.parse("2027-11-27T12:00:00Z");
    await store.write(LEVELS.map(({ step }) => ({ step, at: ahead, count: 1, values: { load: 9 } })));
    const { minutes, recorder } = recorded(store);
    await minutes(90);
    expect(await store.last(MINUTE)).toBeLessThan(ahead);
    expect((await store.read(HOURS.step, 0, Number.MAX_SAFE_INTEGER)).length).toBe(2);
    await recorder.close();
  });

  test("says once that it cannot write, and goes on when it can", async () => {
    const store = new MemoryHistory();
    const write = store.write.bind(store);
    store.write = () => Promise.reject(new Error("no space left on device"));
    const { minutes, warnings, recorder } = recorded(store);
    await minutes(3);
    expect(warnings.length).toBe(1);
    store.write = write;
    await minutes(2);
    expect((await store.read(MINUTE, 0, Number.MAX_SAFE_INTEGER)).length).toBe(2);
    await recorder.close();
  });
});

describe("a look at the cluster", () => {
  const tenant = (name: string, status: Partial<TenantStatus>): Tenant => ({
    kind: "Tenant",
    metadata: { name, resourceVersion: "1", generation: 1, creationTimestamp: "2026-01-01T00:00:00.000Z" },
    spec: { serverName: `${name}.example`, release: "1.163.2", config: "", reclaimPolicy: "Retain" },
    status: { ...newTenantStatus(), ...status },
  });
  const [before, since, after] = ["2026-11-27T11:59:59.999Z", "2026-11-27T12:00:00.000Z", "2026-11-27T12:00:10.000Z"];
  const move = (finishedAt: string, outcome: "Succeeded" | "RolledBack", blackoutSeconds: number) => ({
    lastMove: { id: "m", from: "a", to: "b", reason: "Requested" as const, outcome, finishedAt, blackoutSeconds },
  });

  test("counts tenants by what they are at, and what happened since", () => {
    const numbers = { parkedRequests: 0, failedRequests: 0 };
    const moved = (name: string, ...of: Parameters<typeof move>) =>
      tenant(name, { phase: "Running", shard: "s", lastMove: { ...move(...of).lastMove, ...numbers } });
    const values = valuesOf({
      tenants: [
        moved("a", after, "Succeeded", 0.4),
        moved("b", since, "RolledBack", 2.5),
        moved("c", before, "Succeeded", 9),
        tenant("d", { phase: "Running", shard: "s", awake: { since: after, reason: "request" } }),
        tenant("e", {
          phase: "Asleep",
          sleep: { id: "1", step: "Asleep", reason: "Idle", requestedAt: before, since: after },
        }),
        tenant("f", { phase: "Provisioning" }),
        tenant("g", { phase: "Failed" }),
      ],
      shards: [],
      policy: DEFAULT_POLICY,
      loadOf: () => undefined,
      memoryOf: () => undefined,
      since,
    });
    expect(values).toEqual({
      running: 4,
      asleep: 1,
      suspended: 0,
      failed: 1,
      onTheWay: 1,
      shards: 0,
      placesTaken: 4,
      places: 0,
      load: 0,
      busiest: 0,
      moves: 2,
      movesFailed: 1,
      blackout: 2.5,
      wakes: 1,
      sleeps: 1,
    });
  });
});
