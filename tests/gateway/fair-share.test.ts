import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { ServerResponse } from "node:http";
import { countsForShare, FairShare, type SharePlace } from "../../src/gateway/fair-share.ts";
import { ask, Bench, eventually, parked, serving } from "./harness.ts";

describe("what counts against a tenant's share", () => {
  it.each([
    ["GET", "/_matrix/client/v3/sync?since=s1&timeout=30000"],
    ["GET", "/_matrix/client/r0/sync?timeout=30000&since=s1&access_token=x"],
    ["POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?pos=1&timeout=30000"],
    ["GET", "/_matrix/client/v3/events?from=s1"],
    ["GET", "/_matrix/client/v1/media/download/a.example/abc"],
    ["POST", "/_matrix/media/v3/upload?filename=x"],
    ["GET", "/_matrix/federation/v1/media/download/abc"],
    ["OPTIONS", "/_matrix/client/v3/sync"],
  ])("%s %s, which only waits, keeps nobody from being served", (method, target) => {
    expect(countsForShare(method, target)).toBe(false);
  });

  it.each([
    ["GET", "/_matrix/client/v3/sync"],
    ["GET", "/_matrix/client/v3/sync?timeout=30000"],
    ["GET", "/_matrix/client/v3/sync?since=s1&timeout=0"],
    ["GET", "/_matrix/client/v3/sync?since=s1"],
    ["POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=30000"],
    ["PUT", "/_matrix/client/v3/rooms/!a:b/send/m.room.message/sync?since=s1&timeout=30000"],
    ["PUT", "/_matrix/federation/v1/send/1"],
    ["GET", "/x/_matrix/media/"],
  ])("counts %s %s, which takes time", (method, target) => {
    expect(countsForShare(method, target)).toBe(true);
  });
});

describe("the queue of a tenant's share", () => {
  const log: string[] = [];
  const share = (maxInFlight: number, countedMs = 60_000, maxSeconds = 60): FairShare => {
    log.length = 0;
    return new FairShare(
      { maxInFlightPerTenant: maxInFlight, parking: { maxRequests: 3, maxBytes: 100, maxSeconds } },
      { refused: (tenant, bound) => void log.push(`${tenant} ${bound}`), waited: () => {} },
      countedMs,
    );
  };
  const enter = (of: FairShare, name: string, tenant = "a", bytes = 10): SharePlace | undefined =>
    of.enter({ tenant, bytes, resume: () => void log.push(name), expire: () => void log.push(`${name} expired`) });

  it("gives a tenant its own number of places, also where others have no bound", () => {
    const places = new Map([["a", 2]]);
    const of = new FairShare(
      { maxInFlightPerTenant: 0, parking: { maxRequests: 3, maxBytes: 100, maxSeconds: 60 } },
      { refused: () => {}, waited: () => {} },
      60_000,
      () => 1,
      (tenant) => places.get(tenant),
    );
    expect(of.counts("a", true)).toBe(true);
    expect(of.counts("b", true)).toBe(false);
    log.length = 0;
    const first = ["one", "two", "three"].map((name) => enter(of, name));
    expect(first.map((place) => place?.state)).toEqual(["counted", "counted", "waiting"]);
    // Another number holds from the next turn on.
    places.set("a", 3);
    of.leave(first[0]!);
    expect(enter(of, "four")?.state).toBe("counted");
    expect(enter(of, "five")?.state).toBe("waiting");
    of.forget("a");
  });

  it("gives turns in order, each tenant's to itself", () => {
    const of = share(1);
    const places = ["one", "two", "three"].map((name) => enter(of, name));
    expect(places.map((place) => place?.state)).toEqual(["counted", "waiting", "waiting"]);
    expect(enter(of, "other", "b")?.state).toBe("counted");
    of.leave(places[0]!);
    of.leave(places[0]!);
    expect(log).toEqual(["two"]);
    expect([...of.sizes()]).toEqual([["a", 1]]);
    of.leave(places[1]!);
    expect(log).toEqual(["two", "three"]);
  });

  it("bounds the queue", () => {
    const of = share(1);
    for (const name of ["0", "1", "2", "3"]) enter(of, name);
    expect(enter(of, "4")).toBeUndefined();
    enter(of, "0", "b");
    enter(of, "1", "b", 60);
    expect(enter(of, "2", "b", 41)).toBeUndefined();
    expect(log).toEqual(["a requests", "b bytes"]);
  });

  it("keeps the place of a client that goes away while it waits for others", () => {
    const of = share(1);
    const [first, gone] = [enter(of, "first")!, enter(of, "gone")!];
    enter(of, "next");
    of.leave(gone);
    of.leave(first);
    expect(log).toEqual(["next"]);
  });

  it("many turns that end at once skip nobody", () => {
    const of = new FairShare(
      { maxInFlightPerTenant: 1, parking: { maxRequests: 50_000, maxBytes: 1e9, maxSeconds: 60 } },
      { refused: () => {}, waited: () => {} },
    );
    const first = enter(of, "first")!;
    let turns = 0;
    for (let i = 0; i < 50_000; i += 1) {
      const place: SharePlace = of.enter({
        tenant: "a",
        bytes: 1,
        resume: () => {
          turns += 1;
          of.leave(place);
        },
        expire: () => {},
      })!;
    }
    of.leave(first);
    expect(turns).toBe(50_000);
    expect([...of.sizes()]).toEqual([]);
  });

  it("requests that wait for another server do not keep the tenant's others waiting", async () => {
    const of = share(1, 50);
    const slow = enter(of, "slow")!;
    const [second] = [enter(of, "second")!, enter(of, "third")];
    await eventually("the second's turn", () => log.includes("second"));
    await eventually("the third's turn", () => log.includes("third"));
    of.leave(slow);
    of.leave(second);
    expect(log).toEqual(["second", "third"]);
  });

  it("a tenant with less than one place has its turns with pauses, as long as its part says", async () => {
    let part = 1 / 4;
    const of = new FairShare(
      { maxInFlightPerTenant: 2, parking: { maxRequests: 3, maxBytes: 100, maxSeconds: 60 } },
      { refused: () => {}, waited: () => {} },
      60_000,
      () => part,
    );
    log.length = 0;
    const first = enter(of, "first")!;
    const second = enter(of, "second")!;
    const third = enter(of, "third")!;
    await sleep(100);
    const freedAt = performance.now();
    of.leave(first);
    expect(log).toEqual([]);
    await eventually("the second's turn", () => log.includes("second"));
    // Half a place: as long without as with a request.
    expect(performance.now() - freedAt).toBeGreaterThan(90);
    part = 1;
    of.leave(second);
    expect(log).toEqual(["second", "third"]);
    of.leave(third);
    expect(enter(of, "fourth")?.state).toBe("counted");
  });

  it("counts what is thought to wait, for a moment, where a tenant keeps very little", async () => {
    const of = new FairShare(
      { maxInFlightPerTenant: 3, parking: { maxRequests: 3, maxBytes: 100, maxSeconds: 60 } },
      { refused: () => {}, waited: () => {} },
      60_000,
      (tenant) => (tenant === "a" ? 1 / 8 : 1 / 4),
    );
    expect([of.counts("a", false), of.counts("b", false), of.counts("b", true)]).toEqual([true, false, true]);
    log.length = 0;
    const poll = (name: string) =>
      of.enter({ tenant: "a", bytes: 1, waits: true, resume: () => void log.push(name), expire: () => {} });
    expect([poll("first"), poll("second")].map((place) => place?.state)).toEqual(["counted", "waiting"]);
    await eventually("the second's turn, while the first waits on", () => log.includes("second"));
  });

  it("bounds the wait for a turn", async () => {
    const of = share(1, 60_000, 0.05);
    enter(of, "first");
    enter(of, "second");
    await eventually("the deadline", () => log.includes("second expired"));
    expect(log).toEqual(["a seconds", "second expired"]);
    expect([...of.sizes()]).toEqual([]);
  });
});

describe("the gateway", () => {
  let bench: Bench;
  afterEach(() => bench.stop());

  /** A homeserver that answers when it is told to. */
  async function holding(): Promise<{ held: ServerResponse[]; most: () => number; route: ReturnType<typeof serving> }> {
    const held: ServerResponse[] = [];
    let [open, most] = [0, 0];
    const origin = await bench.origin((request, response) => {
      open += 1;
      most = Math.max(most, open);
      response.once("close", () => {
        open -= 1;
      });
      request.resume().on("end", () => held.push(response));
    });
    return { held, most: () => most, route: serving("a", origin) };
  }

  const SEND = { method: "PUT", path: "/_matrix/client/v3/rooms/r/send/m.room.message/1", body: "{}" };
  const waiting = (tenant: string): Promise<number> => bench.metric(`share_waiting_requests{tenant="${tenant}"}`);

  it("a tenant takes no more than its share; long polls and uploads take none", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 2 });
    const { held, route, most } = await holding();
    const other = await bench.origin();
    await bench.controller.update([route, serving("b", other)]);
    const free = [
      ask(bench, "a.example", { path: "/_matrix/client/v3/sync?since=s1&timeout=30000" }),
      ask(bench, "a.example", { method: "POST", path: "/_matrix/media/v3/upload", body: Buffer.alloc(300_000) }),
    ];
    await eventually("both are there", () => held.length === 2);
    const answers = Array.from({ length: 6 }, () => ask(bench, "a.example", SEND));
    await eventually("the others wait", async () => (await waiting("a")) === 4);
    expect(most()).toBe(4);
    expect((await ask(bench, "b.example", SEND)).status).toBe(200);
    let served = 2;
    while (served < 8) {
      await eventually("the next", () => held.length > served);
      held[served]!.end("{}");
      served += 1;
    }
    expect((await Promise.all(answers)).map((answer) => answer.status)).toEqual(Array(6).fill(200));
    expect(most()).toBe(4);
    for (const response of held.slice(0, 2)) response.end("{}");
    await Promise.all(free);
    expect(await bench.metric("share_seconds_count")).toBe(4);
  });

  it("a request without room to wait, or that waits too long, gets a limit that clients obey", async () => {
    bench = await Bench.start([], {
      maxInFlightPerTenant: 1,
      parking: { maxRequests: 1, maxBytes: 100_000, maxSeconds: 0.5 },
    });
    const { held, route } = await holding();
    await bench.controller.update([route]);
    const first = ask(bench, "a.example", SEND);
    await eventually("the first is there", () => held.length === 1);
    const second = ask(bench, "a.example", SEND);
    await eventually("the second waits", async () => (await waiting("a")) === 1);
    for (const answer of [await ask(bench, "a.example", SEND), await second]) {
      expect([answer.status, answer.json.errcode, answer.headers["retry-after"]]).toEqual([
        429,
        "M_LIMIT_EXCEEDED",
        "2",
      ]);
      expect(answer.json.retry_after_ms).toBe(2000);
    }
    held[0]!.end("{}");
    expect((await first).status).toBe(200);
    for (const bound of ["requests", "seconds"])
      expect(await bench.metric(`share_rejected_total{tenant="a",bound="${bound}"}`)).toBe(1);
  });

  it("lets less of a throttled tenant through, as soon as its route says so", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 2 });
    const { held, route, most } = await holding();
    await bench.controller.update([{ ...route, share: 0.5 }]);
    const answers = Array.from({ length: 3 }, () => ask(bench, "a.example", SEND));
    await eventually("two wait", async () => (await waiting("a")) === 2 && held.length === 1);
    held[0]!.end("{}");
    await eventually("the second is there", () => held.length === 2);
    expect(most()).toBe(1);
    await bench.controller.update([route]);
    for (const index of [1, 2]) {
      await eventually("the next", () => held.length > index);
      held[index]!.end("{}");
    }
    expect((await Promise.all(answers)).map((answer) => answer.status)).toEqual([200, 200, 200]);
  });

  it("requests that wait for their turn follow a tenant that moves", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 1 });
    const { held, route } = await holding();
    await bench.controller.update([route]);
    const answers = Array.from({ length: 5 }, () => ask(bench, "a.example", SEND));
    await eventually("four wait", async () => (await waiting("a")) === 4 && held.length === 1);
    await bench.controller.update([{ ...parked("a"), draining: route.address }]);
    held[0]!.end("{}");
    await eventually("they wait for the tenant now", async () => (await bench.parkedNow("a")) === 4);
    expect(await waiting("a")).toBe(0);
    const fresh = await bench.origin();
    expect((await bench.controller.update([serving("a", fresh, 2)])).parks).toEqual({ a: { parked: 4, failed: 0 } });
    expect((await Promise.all(answers)).map((answer) => answer.status)).toEqual(Array(5).fill(200));
    expect([held.length, fresh.seen.length]).toEqual([1, 4]);
  });

  it("broken connections and clients that go away free their places", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 1 });
    let calls = 0;
    const origin = await bench.origin((request, response) => {
      calls += 1;
      if (request.url === "/hang") return;
      if (request.url === "/break") request.socket.destroy();
      else response.end("{}");
    });
    await bench.controller.update([serving("a", origin)]);
    expect((await ask(bench, "a.example", { method: "POST", path: "/break" })).status).toBe(502);
    const gone = new AbortController();
    const hanging = ask(bench, "a.example", { path: "/hang", signal: gone.signal }).catch(() => "gone");
    await eventually("it hangs", () => calls === 2);
    const next = ask(bench, "a.example", SEND);
    await eventually("the next waits", async () => (await waiting("a")) === 1);
    gone.abort();
    expect(await hanging).toBe("gone");
    expect((await next).status).toBe(200);
  });
});
