import { describe, expect, it } from "vitest";
import { ParkCounts } from "../../src/gateway/park-counts.ts";
import { ParkQueue, type ParkTicket } from "../../src/gateway/park-queue.ts";

const ticket = (tenant: string, bytes = 10): ParkTicket => ({ tenant, bytes, waiting: true });

describe("the queue of waiting requests", () => {
  it("one tenant's waiting requests take no other's places", () => {
    const queue = new ParkQueue({ maxRequests: 2, maxBytes: 1000 });
    expect([ticket("a"), ticket("a"), ticket("a"), ticket("b")].map((t) => queue.enter(t))).toEqual([
      undefined,
      undefined,
      "requests",
      undefined,
    ]);
  });

  it("counts the bytes that wait", () => {
    const queue = new ParkQueue({ maxRequests: 10, maxBytes: 100 });
    const first = ticket("a", 60);
    expect(queue.enter(first)).toBeUndefined();
    expect(queue.enter(ticket("a", 41))).toBe("bytes");
    expect(queue.enter(ticket("a", 40))).toBeUndefined();
    queue.leave(first);
    queue.leave(first);
    expect(queue.bytes("a")).toBe(40);
    expect(queue.enter(ticket("a", 60))).toBeUndefined();
  });

  it("a request that is tried in vain keeps its place in the order", () => {
    const queue = new ParkQueue({ maxRequests: 10, maxBytes: 1000 });
    const [one, two, three] = [ticket("a"), ticket("a"), ticket("a")];
    for (const t of [one, two]) queue.enter(t);
    expect(queue.release("a")).toEqual([one, two]);
    expect(queue.release("a")).toEqual([]);
    queue.enter(three);
    for (const t of [two, one]) t.waiting = true;
    expect(queue.release("a")).toEqual([one, two, three]);
  });

  it("tenants without waiting requests take no memory", () => {
    const queue = new ParkQueue({ maxRequests: 2, maxBytes: 1000 });
    const one = ticket("a");
    queue.enter(one);
    expect([...queue.sizes()]).toEqual([["a", 1]]);
    queue.leave(one);
    expect([...queue.sizes()]).toEqual([]);
  });
});

describe("the counts of a park", () => {
  it("has those who waited before it began, and is told once", () => {
    const counts = new ParkCounts();
    counts.waits("a");
    counts.begin("a", 1);
    counts.begin("a", 9);
    counts.waits("a");
    counts.fails("a", 5);
    expect(counts.take()).toEqual({});
    counts.end("a", 10);
    expect(counts.take()).toEqual({ a: { parked: 2, failed: 1 } });
    expect(counts.take()).toEqual({});
  });

  it("has requests that were open in it and fail after it, and none that came later or before any park", () => {
    let late = 0;
    const counts = new ParkCounts(() => (late += 1));
    counts.fails("a", 0);
    counts.begin("a", 0);
    counts.end("a", 10);
    counts.take();
    counts.fails("a", 11);
    expect(late).toBe(0);
    counts.fails("a", 9);
    counts.fails("a", 10);
    expect([late, counts.take()]).toEqual([2, { a: { parked: 0, failed: 2 } }]);
  });

  it("keeps the parks of one tenant apart, and forgets tenants that are gone", () => {
    const counts = new ParkCounts();
    counts.begin("a", 3);
    counts.end("a", 10);
    counts.begin("a", 0);
    counts.waits("a");
    counts.end("a", 20);
    expect(counts.take()).toEqual({ a: { parked: 4, failed: 0 } });
    counts.fails("a", 15);
    counts.forget("a");
    counts.fails("a", 15);
    expect(counts.take()).toEqual({ a: { parked: 0, failed: 1 } });
  });
});
