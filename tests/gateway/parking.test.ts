import dns from "node:dns";
import { afterEach, describe, expect, it, vi } from "vitest";
import { ask, Bench, eventually, parked, serving, Wire, type Answer } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

/** Connections wait for their name to be resolved, until the test says so. */
function holdNames() {
  let resolve: (() => void) | undefined;
  const lookup = vi.spyOn(dns, "lookup").mockImplementation(((
    _name: string,
    options: { all?: boolean },
    done: (...results: unknown[]) => void,
  ) => {
    resolve = () => (options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4));
  }) as unknown as typeof dns.lookup);
  return { lookup, resolveName: () => resolve?.() };
}

describe("requests of a parked tenant", () => {
  it("requests wait during a move, go to the new address in order, and are counted", async () => {
    bench = await Bench.start([]);
    const [old, fresh] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([serving("a", old)]);
    await bench.controller.update([parked("a")]);
    const answers: Promise<Answer>[] = [];
    for (let i = 0; i < 10; i += 1) {
      answers.push(
        ask(bench, "a.example", i % 2 ? { path: `/${i}` } : { path: `/${i}`, method: "PUT", body: `body ${i}` }),
      );
      await eventually("the request waits", async () => (await bench.parkedNow("a")) === i + 1);
    }
    const ack = await bench.controller.update([serving("a", fresh, 2)]);
    expect(ack.parks).toEqual({ a: { parked: 10, failed: 0 } });
    expect((await Promise.all(answers)).map((answer) => [answer.status, answer.json.port])).toEqual(
      Array.from({ length: 10 }, () => [200, fresh.port]),
    );
    expect(old.seen).toEqual([]);
    expect(fresh.seen.map((request) => request.url).toSorted()).toEqual(Array.from({ length: 10 }, (_, i) => `/${i}`));
    expect(await bench.parkedNow("a")).toBe(0);
  });

  it("requests that wait when their tenant gets another name go on waiting for it under that", async () => {
    bench = await Bench.start([parked("a")]);
    const fresh = await bench.origin();
    const answer = ask(bench, "a.example", { path: "/1", method: "PUT", body: "body" });
    await eventually("the request waits", async () => (await bench.parkedNow("a")) === 1);
    const renamed = { hosts: ["a.example"], formerly: "a" };
    await bench.controller.update([{ ...parked("b", 3), ...renamed }], ["a"]);
    await eventually("it waits for the other", async () => (await bench.parkedNow("b")) === 1);
    expect(await bench.parkedNow("a")).toBe(0);
    await bench.controller.update([{ ...serving("b", fresh, 4), ...renamed }]);
    expect((await answer).status).toBe(200);
    expect(await bench.parkedNow("b")).toBe(0);
    // A tenant that is gone has none that goes on for it, whoever has its host.
    await bench.controller.update([parked("c")]);
    const lost = ask(bench, "c.example", { path: "/2" });
    await eventually("the request waits", async () => (await bench.parkedNow("c")) === 1);
    await bench.controller.update([{ ...serving("d", fresh), hosts: ["c.example"] }], ["c"]);
    expect((await lost).status).toBe(404);
  });

  it.each(["two updates", "one update"])(
    "a request goes to the tenant of its host, although another has its former name by now, told in %s",
    async (told) => {
      bench = await Bench.start([]);
      const [old, other] = [await bench.origin(), await bench.origin()];
      await bench.controller.update([serving("a", old)]);
      const slow = new Wire(bench.port);
      slow.send("PUT /1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 8\r\n\r\nhalf");
      await eventually("its body is being read", async () => (await bench.metric("requests_in_flight")) === 1);
      const renamed = { ...serving("b", old, 4), hosts: ["a.example"], formerly: "a" };
      const newcomer = { ...serving("a", other, 5), hosts: ["other.example"] };
      if (told === "two updates") await bench.controller.update([renamed], ["a"]);
      await bench.controller.update(told === "two updates" ? [newcomer] : [renamed, newcomer]);
      slow.send("half");
      await slow.sees("HTTP/1.1 200");
      expect([old.seen.length, other.seen.length]).toEqual([1, 0]);
      // Nor does what waits for the newcomer go to the one that had its name before, when the newcomer goes.
      await bench.controller.update([{ ...parked("a", 6), hosts: ["other.example"] }]);
      const lost = ask(bench, "other.example", { path: "/2" });
      await eventually("the request waits", async () => (await bench.parkedNow("a")) === 1);
      await bench.controller.update([], ["a"]);
      expect((await lost).status).toBe(404);
      expect(old.seen).toHaveLength(1);
    },
  );

  it("requests that waited longest go first", async () => {
    bench = await Bench.start([parked("a")]);
    const arrived: string[] = [];
    const origin = await bench.origin((request, response) => {
      arrived.push(request.url!);
      response.end();
    });
    const answers: Promise<Answer>[] = [];
    for (let i = 0; i < 6; i += 1) {
      answers.push(ask(bench, "a.example", { path: `/${i}` }));
      await eventually("the request waits", async () => (await bench.parkedNow("a")) === i + 1);
    }
    await bench.controller.update([serving("a", origin)]);
    await Promise.all(answers);
    // Connections are opened in the order of arrival; on loopback they are accepted in that order too.
    expect(arrived).toEqual(["/0", "/1", "/2", "/3", "/4", "/5"]);
  });

  it("nothing reaches the old address once the gateway has acknowledged parking, under load", async () => {
    bench = await Bench.start([]);
    const [old, fresh] = [await bench.origin(), await bench.origin()];
    for (let round = 0; round < 5; round += 1) {
      await bench.controller.update([serving("a", old, round)]);
      old.seen.length = 0;
      let asked = 0;
      const answers: Promise<Answer>[] = [];
      const arriving = setInterval(() => {
        for (let i = 0; i < 4; i += 1) {
          const options = i % 2 ? { method: "PUT", body: "x".repeat(2000) } : {};
          answers.push(ask(bench, "a.example", { ...options, path: `/${asked}` }));
          asked += 1;
        }
      }, 2);
      await eventually("some requests went through", () => old.seen.length > 20);
      await bench.controller.update([parked("a")]);
      const parkedFrom = asked;
      await eventually("requests wait", async () => (await bench.parkedNow("a")) > 20);
      clearInterval(arriving);
      await bench.controller.update([serving("a", fresh, round)]);
      expect((await Promise.all(answers)).filter((answer) => answer.status !== 200)).toEqual([]);
      expect(old.seen.filter((request) => Number(request.url.slice(1)) >= parkedFrom)).toEqual([]);
    }
  });

  it("parks a request whose body is complete only after the acknowledgement", async () => {
    bench = await Bench.start([]);
    const [old, fresh] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([serving("a", old)]);
    const wire = new Wire(bench.port).send("PUT /late HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nhalf ");
    await eventually("its body is read", async () => (await bench.metric("requests_in_flight")) === 1);
    await bench.controller.update([parked("a")]);
    wire.send("other");
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    await bench.controller.update([serving("a", fresh)]);
    await wire.sees(`"port":${fresh.port}`);
    expect(old.seen).toEqual([]);
    expect(fresh.seen[0]!.body.toString()).toBe("half other");
    wire.destroy();
  });

  it("parks a request whose connection is made only after the acknowledgement", async () => {
    bench = await Bench.start([]);
    const [old, fresh] = [await bench.origin(), await bench.origin()];
    const { lookup, resolveName } = holdNames();
    try {
      await bench.controller.update([{ ...serving("a", old), address: `old-shard.test:${old.port}` }]);
      const answer = ask(bench, "a.example", { method: "PUT", body: "late" });
      await eventually("it is being connected", () => lookup.mock.calls.length > 0);
      await bench.controller.update([parked("a")]);
      resolveName();
      await eventually("the connection was made", () => old.connections > 0);
      await eventually("the request waits", async () => (await bench.parkedNow("a")) === 1);
      expect(old.seen).toEqual([]);
      await bench.controller.update([serving("a", fresh)]);
      expect((await answer).json.port).toBe(fresh.port);
      expect(old.seen).toEqual([]);
    } finally {
      lookup.mockRestore();
    }
  });

  it("does not send a request whose client left while the connection was made", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    const { lookup, resolveName } = holdNames();
    try {
      await bench.controller.update([{ ...serving("a", origin), address: `shard.test:${origin.port}` }]);
      const gone = new AbortController();
      const answer = ask(bench, "a.example", { signal: gone.signal }).catch(() => "gone");
      await eventually("it is being connected", () => lookup.mock.calls.length > 0);
      gone.abort();
      expect(await answer).toBe("gone");
      await eventually("the gateway knows", async () => (await bench.metric("requests_in_flight")) === 0);
      resolveName();
      await eventually("the connection was made", () => origin.connections > 0);
    } finally {
      lookup.mockRestore();
    }
    await bench.controller.update([serving("a", origin)]);
    expect((await ask(bench, "a.example", { path: "/after" })).status).toBe(200);
    expect(origin.seen.map((request) => request.url)).toEqual(["/after"]);
  });

  it("a flood for a moving tenant is bounded, and answered", async () => {
    bench = await Bench.start([parked("a"), parked("b")], {
      parking: { maxRequests: 3, maxBytes: 1024 * 1024, maxSeconds: 20 },
    });
    const waiting = [1, 2, 3].map(() => ask(bench, "a.example"));
    await eventually("three wait", async () => (await bench.parkedNow("a")) === 3);
    const refused = await ask(bench, "a.example");
    expect(refused.status).toBe(503);
    expect(refused.headers["retry-after"]).toMatch(/^\d+$/);
    expect(refused.json).toMatchObject({ errcode: "M_LIMIT_EXCEEDED" });
    expect(refused.headers["access-control-allow-origin"]).toBe("*");
    const neighbour = ask(bench, "b.example");
    await eventually("the neighbour's waits", async () => (await bench.parkedNow("b")) === 1);
    expect(await bench.metric('park_rejected_total{tenant="a",bound="requests"}')).toBe(1);
    const origin = await bench.origin();
    const ack = await bench.controller.update([serving("a", origin), serving("b", origin)]);
    expect(ack.parks).toEqual({ a: { parked: 4, failed: 1 }, b: { parked: 1, failed: 0 } });
    for (const answer of await Promise.all([...waiting, neighbour])) expect(answer.status).toBe(200);
  });

  it("bounds the bytes of waiting bodies", async () => {
    bench = await Bench.start([parked("a")], { parking: { maxRequests: 100, maxBytes: 150_000, maxSeconds: 20 } });
    const wires = [1, 2].map(() =>
      new Wire(bench.port).send("PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 90000000\r\n\r\n"),
    );
    await eventually("two wait", async () => (await bench.parkedNow("a")) === 2);
    const refused = await ask(bench, "a.example", { method: "PUT", body: Buffer.alloc(60_000) });
    expect(refused.status).toBe(503);
    expect(await bench.metric('park_rejected_total{tenant="a",bound="bytes"}')).toBe(1);
    for (const wire of wires) wire.destroy();
    await eventually("they are gone", async () => (await bench.parkedNow("a")) === 0);
  });

  it("bounds the time of waiting", async () => {
    bench = await Bench.start([parked("a")], { parking: { maxRequests: 10, maxBytes: 100_000, maxSeconds: 0.2 } });
    const answer = await ask(bench, "a.example", { method: "POST", body: "{}" });
    expect(answer.status).toBe(503);
    expect(answer.json.errcode).toBe("M_LIMIT_EXCEEDED");
    expect(await bench.metric('park_rejected_total{tenant="a",bound="seconds"}')).toBe(1);
    const origin = await bench.origin();
    expect((await bench.controller.update([serving("a", origin)])).parks).toEqual({ a: { parked: 1, failed: 1 } });
  });

  it("clients that went away free their places, and are not sent", async () => {
    bench = await Bench.start([parked("a")]);
    const gone = new AbortController();
    const answers = [1, 2, 3].map(() => ask(bench, "a.example", { signal: gone.signal }).catch(() => "gone"));
    await eventually("they wait", async () => (await bench.parkedNow("a")) === 3);
    gone.abort();
    await Promise.all(answers);
    await eventually("their places are free", async () => (await bench.parkedNow("a")) === 0);
    const origin = await bench.origin();
    expect((await bench.controller.update([serving("a", origin)])).parks).toEqual({ a: { parked: 3, failed: 0 } });
    expect(origin.seen).toEqual([]);
  });

  it("does not ask a parked upload for its body", async () => {
    bench = await Bench.start([parked("a")]);
    const wire = new Wire(bench.port).send(
      "PUT /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    expect(wire.text).toBe("");
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    await wire.sees("100 Continue");
    expect(origin.seen).toEqual([]);
    wire.send("hello");
    await wire.sees("HTTP/1.1 200");
    expect(origin.seen[0]!.body.toString()).toBe("hello");
    expect(origin.seen[0]!.headers).not.toHaveProperty("expect");
    wire.destroy();
  });

  it("does not read a large parked upload ahead", async () => {
    bench = await Bench.start([parked("a")], { parking: { maxRequests: 10, maxBytes: 10_000_000, maxSeconds: 20 } });
    const size = 64 * 1024 * 1024;
    const wire = new Wire(bench.port).send(`POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${size}\r\n\r\n`);
    wire.socket.write(Buffer.alloc(size));
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    // What the kernel and Node hold of it is a few MB at most; the rest is still with the client.
    expect(wire.socket.bytesWritten - wire.socket.writableLength).toBeLessThan(16 * 1024 * 1024);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    await wire.sees("HTTP/1.1 200");
    expect(origin.seen[0]!.body.length).toBe(size);
    wire.destroy();
  });

  it("answers waiting requests when the tenant fails or is deleted", async () => {
    bench = await Bench.start([parked("a"), parked("b")]);
    const [a, b] = [ask(bench, "a.example"), ask(bench, "b.example")];
    await eventually("they wait", async () => (await bench.parkedNow("a")) + (await bench.parkedNow("b")) === 2);
    const ack = await bench.controller.update([{ ...parked("a"), state: "unavailable", reason: "Failed" }], ["b"]);
    expect([(await a).status, (await b).status]).toEqual([503, 404]);
    expect(ack.parks.a).toEqual({ parked: 1, failed: 1 });
  });

  it("answers a browser's preflight at once", async () => {
    bench = await Bench.start([parked("a")]);
    const answer = await ask(bench, "a.example", {
      method: "OPTIONS",
      headers: { Origin: "https://app.example", "Access-Control-Request-Method": "PUT" },
    });
    expect(answer.status).toBe(204);
    expect(answer.headers["access-control-allow-methods"]).toContain("PUT");
    expect(answer.headers["access-control-allow-headers"]).toContain("Authorization");
  });
});
