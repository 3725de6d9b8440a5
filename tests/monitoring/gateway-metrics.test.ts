import * as fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { ask, Bench, eventually, parked, serving } from "../gateway/harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

const near = (value: number, low: number, high: number) => {
  expect(value).toBeGreaterThanOrEqual(low);
  expect(value).toBeLessThan(high);
};

test("tells how long requests have been waiting, while they wait", async () => {
  bench = await Bench.start([parked("a")]);
  const origin = await bench.origin();
  expect(await bench.metric("oldest_park_seconds")).toBe(0);
  const first = ask(bench, "a.example");
  await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
  await new Promise((done) => setTimeout(done, 300));
  const second = ask(bench, "a.example");
  await eventually("both wait", async () => (await bench.parkedNow("a")) === 2);
  near(await bench.metric("oldest_park_seconds"), 0.3, 5);
  near(await bench.metric('tenant_parked_seconds{tenant="a"}'), 0.3, 5);
  await bench.controller.update([serving("a", origin)]);
  await Promise.all([first, second]);
  expect(await bench.metric("oldest_park_seconds")).toBe(0);
  expect(await bench.metrics()).not.toContain("tenant_parked_seconds{");
  expect(await bench.metric('parks_total{outcome="sent"}')).toBe(2);
});

test("tells how waiting ended", async () => {
  bench = await Bench.start([parked("a"), parked("b")], {
    parking: { maxRequests: 1, maxBytes: 100_000, maxSeconds: 0.4 },
  });
  expect(await bench.metric('parks_total{outcome="timeout"}')).toBe(0);
  const waits = ask(bench, "a.example");
  await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
  expect((await ask(bench, "a.example")).status).toBe(503);
  expect((await waits).status).toBe(503);
  const removed = ask(bench, "b.example");
  await eventually("it waits", async () => (await bench.parkedNow("b")) === 1);
  await bench.controller.update([], ["b"]);
  expect((await removed).status).toBe(404);
  const leaving = new AbortController();
  const left = ask(bench, "a.example", { signal: leaving.signal });
  await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
  leaving.abort();
  await expect(left).rejects.toThrow("abort");
  await eventually("it is seen to have left", async () => (await bench.metric('parks_total{outcome="left"}')) === 1);
  expect(await bench.metric('parks_total{outcome="full"}')).toBe(1);
  expect(await bench.metric('parks_total{outcome="timeout"}')).toBe(1);
  expect(await bench.metric('parks_total{outcome="failed"}')).toBe(1);
  expect(await bench.metric("park_seconds_count")).toBe(3);
});

test("keeps long polls out of the latencies", async () => {
  bench = await Bench.start([]);
  const origin = await bench.origin((request, response) => {
    setTimeout(() => response.end(), request.url!.includes("/sync") ? 600 : 0);
  });
  await bench.controller.update([serving("a", origin)]);
  await ask(bench, "a.example", { path: "/_matrix/client/v3/sync?since=s1&timeout=30000" });
  await ask(bench, "a.example", { path: "/_matrix/client/versions" });
  await eventually(
    "both are counted",
    async () => (await bench.metric('request_seconds_count{kind="computing"}')) === 1,
  );
  expect(await bench.metric('request_seconds_count{kind="waiting"}')).toBe(1);
  near(await bench.metric('request_seconds_sum{kind="waiting"}'), 0.6, 5);
  near(await bench.metric('request_seconds_sum{kind="computing"}'), 0, 0.5);
});

test("counts homeservers that break off", async () => {
  bench = await Bench.start([]);
  const origin = await bench.origin((request, response) => {
    if (request.url === "/half")
      response.writeHead(200, { "content-length": "10" }).write("five!", () => request.socket.destroy());
    else request.socket.destroy();
  });
  await bench.controller.update([serving("a", origin)]);
  expect((await ask(bench, "a.example", { path: "/cut", method: "POST", body: "x" })).status).toBe(502);
  await expect(ask(bench, "a.example", { path: "/half" })).rejects.toThrow(/aborted|hang up/);
  expect(await bench.metric('upstream_errors_total{tenant="a",reason="cut"}')).toBe(1);
  expect(await bench.metric('upstream_errors_total{tenant="a",reason="half"}')).toBe(1);
  await bench.controller.update([], ["a"]);
  expect(await bench.metrics()).not.toContain('tenant="a"');
});

/** How a request may be at work when its tenant is removed: what its homeserver does in the end, and how it is sent. */
const AT_WORK = {
  answered: { path: "/answer", method: "POST", body: "x" },
  broken: { path: "/cut", method: "POST", body: "x" },
  half: { path: "/half", method: "GET" },
  repeated: { path: "/cut", method: "GET" },
  left: { path: "/answer", method: "GET", leaves: true },
} as const;
const kinds = Object.keys(AT_WORK) as (keyof typeof AT_WORK)[];

test("a removed tenant has no series, whatever its requests in flight come to", async () => {
  bench = await Bench.start([], {
    maxInFlightPerTenant: 3,
    parking: { maxRequests: 2, maxBytes: 100_000, maxSeconds: 20 },
  });
  let held: (() => void)[] = [];
  const origin = await bench.origin((request, response) => {
    request.resume();
    if (request.url === "/half") response.writeHead(200, { "content-length": "10" }).write("five!");
    held.push(() => (request.url === "/answer" ? response.end("{}") : request.socket.destroy()));
  });
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...kinds), { minLength: 1, maxLength: 8 }),
      fc.boolean(),
      async (requests, parks) => {
        const tenant = `t${(runs += 1)}`;
        await bench.controller.update([serving(tenant, origin)]);
        const leaving = new AbortController();
        const asked = requests.map((kind) => {
          const { path, method, ...rest } = AT_WORK[kind];
          const signal = "leaves" in rest ? leaving.signal : undefined;
          const body = "body" in rest ? rest.body : undefined;
          return ask(bench, `${tenant}.example`, { path, method, body, signal }).catch(() => undefined);
        });
        // Beyond three in flight two wait for their turn, and the rest is refused at once.
        const [inFlight, waiting] = [Math.min(requests.length, 3), Math.min(Math.max(requests.length - 3, 0), 2)];
        await eventually("the homeserver has them", () => held.length >= inFlight);
        await eventually(
          "the others wait",
          async () => (await bench.metric(`share_waiting_requests{tenant="${tenant}"}`)) === waiting,
        );
        if (parks) await bench.controller.update([parked(tenant)]);
        await bench.controller.update([], [tenant]);
        leaving.abort();
        for (const end of held.splice(0)) end();
        await Promise.all(asked);
        await eventually("nothing is in flight", async () => (await bench.metric("requests_in_flight")) === 0);
        held = [];
        expect(await bench.metrics()).not.toContain(`tenant="${tenant}"`);
      },
    ),
    { numRuns: 30 },
  );
});
