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
