import { describe, expect, it } from "vitest";
import { ParkQueue, type ParkTicket } from "../../src/gateway/park-queue.ts";

const ticket = (tenant: string, bytes = 10): ParkTicket => ({ tenant, bytes, waiting: true });

describe("the queue of waiting requests", () => {
  it("prevents that one tenant's waiting requests take another's places", () => {
    const queue = new ParkQueue({ maxRequests: 2, maxBytes: 1000 });
    expect([ticket("a"), ticket("a"), ticket("a"), ticket("b")].map((t) => queue.enter(t))).toEqual([
      undefined,
      undefined,
      "requests",
      undefined,
    ]);
  });

  it("prevents that bytes are lost count of", () => {
    const queue = new ParkQueue({ maxRequests: 10, maxBytes: 100 });
    const first = ticket("a", 60);
    expect(queue.enter(first)).toBeUndefined();
    expect(queue.enter(ticket("a", 41))).toBe("bytes");
    expect(queue.enter(ticket("a", 40))).toBeUndefined();
    queue.leave(first, false);
    queue.leave(first, false);
    expect(queue.bytes("a")).toBe(40);
    expect(queue.enter(ticket("a", 60))).toBeUndefined();
  });

  it("prevents that a request which is tried in vain loses its place in the order", () => {
    const queue = new ParkQueue({ maxRequests: 10, maxBytes: 1000 });
    const [one, two, three] = [ticket("a"), ticket("a"), ticket("a")];
    for (const t of [one, two]) queue.enter(t);
    expect(queue.release("a")).toEqual([one, two]);
    expect(queue.release("a")).toEqual([]);
    queue.enter(three);
    for (const t of [two, one]) t.waiting = true;
    expect(queue.release("a")).toEqual([one, two, three]);
  });

  it("prevents that counts of one move show up in another", () => {
    const queue = new ParkQueue({ maxRequests: 2, maxBytes: 1000 });
    const early = ticket("a");
    queue.enter(ticket("a"));
    queue.leave(early, true);
    queue.beginEpisode("a");
    const late = ticket("a");
    queue.enter(late);
    queue.enter(ticket("a"));
    queue.leave(late, true);
    expect(queue.endEpisode("a")).toEqual({ parked: 3, failed: 2 });
    expect(queue.endEpisode("a")).toBeUndefined();
  });

  it("prevents that tenants nobody waits for take memory", () => {
    const queue = new ParkQueue({ maxRequests: 2, maxBytes: 1000 });
    const one = ticket("a");
    queue.enter(one);
    expect([...queue.sizes()]).toEqual([["a", 1]]);
    queue.leave(one, false);
    expect([...queue.sizes()]).toEqual([]);
  });
});
