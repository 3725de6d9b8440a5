import { beforeEach, describe, expect, it } from "vitest";
import { Absences } from "../../../src/controller/shards/absences.ts";
import { SteadyClock, timeText } from "../../../src/model/clock.ts";
import type { Shard } from "../../../src/model/shard.ts";
import type { Tenant, TenantStatus } from "../../../src/model/tenant.ts";
import type { ShardState } from "../../../src/ports/shard-control.ts";
import { FakeTime } from "../../support/fake-clock.ts";

const MINUTE = 60_000;

let time: FakeTime;
let clock: SteadyClock;
let tenants: Map<string, Tenant>;
let shards: Map<string, Shard>;

beforeEach(() => {
  time = new FakeTime();
  clock = new SteadyClock(time);
  tenants = new Map([["a", tenant({})]]);
  shards = new Map();
});

function tenant(status: Partial<TenantStatus>): Tenant {
  const metadata = { name: "a", creationTimestamp: timeText(clock.now()) };
  return { metadata, status: { phase: "Running", epoch: 1, ...status } } as Tenant;
}

function absences(): Absences {
  const reader = {
    get: (kind: string, name: string) => (kind === "Tenant" ? tenants : shards).get(name) as never,
    values: (kind: string) => (kind === "Tenant" ? tenants : shards).values() as never,
  };
  return new Absences(clock, reader, 60);
}

function says(instance: string, epoch = 1, phase = "running"): ShardState {
  return { name: "s", instance, tenants: [{ name: "a", epoch, phase }] } as unknown as ShardState;
}

describe("a tenant whose shard is lost", () => {
  it("was away if it is back after more than a minute, and that is told once", () => {
    const noted = absences();
    expect(noted.note(says("one"))).toEqual([]);
    time.pass(61_000);
    expect(noted.note(says("two", 2))).toEqual([{ tenant: "a", seconds: 61 }]);
    expect(noted.note(says("two", 2))).toEqual([]);
  });

  it("was not away if it is back within a minute, or never stopped", () => {
    const noted = absences();
    noted.note(says("one"));
    time.pass(59_000);
    expect(noted.note(says("two"))).toEqual([]);
    // A controller that looked away for long.
    time.pass(10 * MINUTE);
    expect(noted.note(says("two"))).toEqual([]);
  });

  it("is not back before it runs", () => {
    const noted = absences();
    noted.note(says("one"));
    time.pass(2 * MINUTE);
    expect(noted.note(says("two", 1, "starting"))).toEqual([]);
    time.pass(MINUTE);
    expect(noted.note(says("two"))).toEqual([{ tenant: "a", seconds: 180 }]);
  });
});

it("a tenant that slept was not away, and one that has the name of a deleted one neither", () => {
  const noted = absences();
  noted.note(says("one"));
  time.pass(2 * MINUTE);
  tenants.set("a", tenant({ wake: { requestedAt: timeText(clock.now()), reason: "request" } }));
  expect(noted.note(says("one", 2))).toEqual([]);
  time.pass(2 * MINUTE);
  tenants.get("a")!.metadata.creationTimestamp = timeText(clock.now() - 10 * MINUTE);
  tenants.get("a")!.status = { ...tenant({}).status, awake: { since: timeText(clock.now()), reason: "due" } };
  expect(noted.note(says("one", 3))).toEqual([]);
  time.pass(2 * MINUTE);
  tenants.set("a", tenant({}));
  expect(noted.note(says("one", 4))).toEqual([]);
});

describe("after another controller", () => {
  const left = (instance: string | undefined, shard = "s") => {
    const lastSeen = timeText(clock.now());
    shards.set(shard, { metadata: { name: shard }, status: { lastSeen, instance } } as Shard);
    tenants.set("a", tenant({ shard }));
  };

  it("a tenant that runs as it was left was not away", () => {
    left("one");
    time.pass(10 * MINUTE);
    const noted = absences();
    noted.open();
    expect(noted.note(says("one"))).toEqual([]);
  });

  it("one that was started again since was away from when its shard was last seen, wherever it runs now", () => {
    for (const [instance, shard] of [
      ["one", "s"],
      [undefined, "s"],
      ["one", "lost"],
    ] as const) {
      left(instance, shard);
      time.pass(2 * MINUTE);
      const noted = absences();
      noted.open();
      expect(noted.note(says("two"))).toEqual([{ tenant: "a", seconds: 120 }]);
    }
  });

  it("one that came to its shard a moment ago was not away", () => {
    left("one");
    time.pass(2 * MINUTE);
    tenants.get("a")!.status.assignedAt = timeText(clock.now());
    const noted = absences();
    noted.open();
    expect(noted.note(says("two"))).toEqual([]);
  });
});

describe("a tenant that runs while no gateway is there", () => {
  it("was away if one is back after more than a minute, and that is told once", () => {
    const noted = absences();
    noted.note(says("one"));
    const gone = clock.now();
    time.pass(90_000);
    noted.note(says("one"));
    noted.gatewaysBack(gone);
    time.pass(1_000);
    expect(noted.note(says("one"))).toEqual([{ tenant: "a", seconds: 91 }]);
    expect(noted.note(says("one"))).toEqual([]);
  });

  it("was not away where a gateway was restarted, or where it was woken or made meanwhile", () => {
    const noted = absences();
    noted.note(says("one"));
    let gone = clock.now();
    time.pass(59_000);
    noted.gatewaysBack(gone);
    time.pass(5_000);
    expect(noted.note(says("one"))).toEqual([]);
    gone = clock.now();
    time.pass(2 * MINUTE);
    tenants.set("a", tenant({ awake: { since: timeText(clock.now()), reason: "due" } }));
    noted.gatewaysBack(gone);
    time.pass(1_000);
    expect(noted.note(says("one"))).toEqual([]);
  });

  it("was away once, also where its shard was restarted meanwhile", () => {
    const noted = absences();
    noted.note(says("one"));
    const gone = clock.now();
    time.pass(2 * MINUTE);
    noted.gatewaysBack(gone);
    expect(noted.note(says("two", 2))).toEqual([{ tenant: "a", seconds: 120 }]);
    expect(noted.note(says("two", 2))).toEqual([]);
  });
});
