import type { ServerResponse } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { isAnsweredWhileDraining } from "../../src/gateway/draining.ts";
import { ask, Bench, eventually, parked, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench?.stop());

const KEYS = "/_matrix/key/v2/server";

describe("what a draining tenant still answers", () => {
  it.each([
    ["GET", KEYS],
    ["GET", "/_matrix/key/v2/server/ed25519:a?minimum_valid_until_ts=1"],
    ["POST", "/_matrix/key/v2/query"],
    ["GET", "/.well-known/matrix/server"],
    ["GET", "/_matrix/federation/v1/version"],
    ["GET", "/_matrix/federation/v1/event/%24x"],
    ["GET", "/_matrix/federation/v1/event_auth/!r/%24x"],
    ["GET", "/_matrix/federation/v1/state/!r?event_id=x"],
    ["GET", "/_matrix/federation/v1/state_ids/!r"],
    ["GET", "/_matrix/federation/v1/backfill/!r?v=x&limit=1"],
    ["GET", "/_matrix/federation/v1/query/profile?user_id=x"],
    ["GET", "/_matrix/federation/v1/user/devices/@a:b"],
    ["GET", "/_matrix/federation/v1/openid/userinfo?access_token=x"],
    ["POST", "/_matrix/federation/v1/get_missing_events/!r"],
    ["POST", "/_matrix/federation/v1/user/keys/query"],
  ])("includes %s %s", (method, target) => {
    expect(isAnsweredWhileDraining(method, target)).toBe(true);
  });

  it.each([
    ["POST", KEYS],
    ["PUT", "/_matrix/federation/v1/send/1"],
    ["GET", "/_matrix/federation/v1/make_join/!r/@a:b"],
    ["PUT", "/_matrix/federation/v2/send_join/!r/%24x"],
    ["POST", "/_matrix/federation/v1/user/keys/claim"],
    ["GET", "/_matrix/client/v3/sync?x=/_matrix/key/v2/server"],
    ["GET", "/_matrix/client/versions"],
    ["GET", "/_matrix/federation/v1/versions"],
    ["GET", "/"],
  ])("does not include %s %s", (method, target) => {
    expect(isAnsweredWhileDraining(method, target)).toBe(false);
  });
});

describe("a tenant that is drained by a move", () => {
  it("ends a remote join: the other server gets our keys while the join's own request is in flight, and everything else waits", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 1 });
    let join: ServerResponse | undefined;
    const old = await bench.origin((request, response) => {
      if (request.url?.includes("join")) join = response;
      else response.end('{"keys":true}');
    });
    await bench.controller.update([serving("a", old)]);
    const joined = ask(bench, "a.example", { method: "POST", path: "/_matrix/client/v3/join/!r:other", body: "{}" });
    await eventually("the join is at the shard", () => join !== undefined);
    await bench.controller.update([parked("a", 1, old)]);
    const other = ask(bench, "a.example", { path: "/_matrix/client/versions" });
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    // The shard's time is the join's, whatever its tenant's share is.
    expect((await ask(bench, "a.example", { path: KEYS })).text).toBe('{"keys":true}');
    join!.end('{"room_id":"!r:other"}');
    expect((await joined).status).toBe(200);
    const fresh = await bench.origin();
    await bench.controller.update([parked("a")]);
    const { parks } = await bench.controller.update([serving("a", fresh, 2)]);
    expect(parks).toEqual({ a: { parked: 1, failed: 0 } });
    expect((await other).json.port).toBe(fresh.port);
  });

  it.each(["GET", "POST"])(
    "holds a %s that comes when the shard has stopped answering, until the move is over",
    async (method) => {
      bench = await Bench.start([]);
      const old = await bench.origin();
      await old.close();
      const path = method === "GET" ? KEYS : "/_matrix/key/v2/query";
      await bench.controller.update([parked("a", 1, old)]);
      const answer = ask(bench, "a.example", { method, path, body: method === "GET" ? undefined : "{}" });
      await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
      const fresh = await bench.origin();
      await bench.controller.update([serving("a", fresh, 2)]);
      expect((await answer).json.port).toBe(fresh.port);
    },
  );

  it.each(["GET", "POST"])("holds a %s that breaks off, or that the shard turns away", async (method) => {
    bench = await Bench.start([]);
    const path = method === "GET" ? KEYS : "/_matrix/key/v2/query";
    let seen = 0;
    const old = await bench.origin((request, response) => {
      seen += 1;
      request.resume();
      if (seen === 1) response.writeHead(421, { "X-Synapse-Shards": "misdirected" }).end();
      else request.socket.destroy();
    });
    await bench.controller.update([parked("a", 1, old)]);
    const body = method === "GET" ? undefined : "{}";
    const answers = [ask(bench, "a.example", { method, path, body })];
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    answers.push(ask(bench, "a.example", { method, path, body }));
    await eventually("both wait", async () => (await bench.parkedNow("a")) === 2);
    const fresh = await bench.origin();
    await bench.controller.update([serving("a", fresh, 2)]);
    for (const answer of await Promise.all(answers))
      expect([answer.status, answer.json.port]).toEqual([200, fresh.port]);
  });
});

describe("requests that a move fails", () => {
  it("counts what clients saw: broken answers and 5xx of the old shard, refusals and time-outs of the gateway", async () => {
    bench = await Bench.start([], { parking: { maxRequests: 1, maxBytes: 100_000, maxSeconds: 20 } });
    const open: Record<string, ServerResponse> = {};
    const old = await bench.origin((request, response) => {
      open[request.url!] = response;
      if (request.url === "/half") response.write("half");
    });
    await bench.controller.update([serving("a", old)]);
    const post = (path: string) => ask(bench, "a.example", { method: "POST", path, body: "{}" });
    const [bad, half, cut, fine] = [post("/bad"), post("/half"), post("/cut"), post("/fine")];
    half.catch(() => {});
    await eventually("all are at the shard", () => Object.keys(open).length === 4);
    await bench.controller.update([parked("a", 1, old)]);
    open["/bad"]!.writeHead(502).end();
    open["/half"]!.socket!.destroy();
    open["/cut"]!.socket!.destroy();
    open["/fine"]!.end("{}");
    expect([(await bad).status, (await cut).status, (await fine).status]).toEqual([502, 502, 200]);
    await expect(half).rejects.toThrow(/aborted|hang up|reset/);
    const waits = ask(bench, "a.example");
    await eventually("one waits", async () => (await bench.parkedNow("a")) === 1);
    expect((await ask(bench, "a.example")).status).toBe(503);
    const fresh = await bench.origin();
    const { parks } = await bench.controller.update([serving("a", fresh, 2)]);
    expect(parks).toEqual({ a: { parked: 2, failed: 4 } });
    expect((await waits).status).toBe(200);
  });

  it("counts a request that fails after the park, in a later word to the controller", async () => {
    bench = await Bench.start([parked("a")]);
    const answer = ask(bench, "a.example", { method: "POST", body: "{}" });
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    const fresh = await bench.origin((request) => request.socket.destroy());
    const { parks } = await bench.controller.update([serving("a", fresh, 2)]);
    expect(parks).toEqual({ a: { parked: 1, failed: 0 } });
    expect((await answer).status).toBe(502);
    const { acks } = bench.controller;
    await eventually("the controller hears of it", () => acks.some((ack) => ack.parks.a?.failed === 1));
  });

  it("does not count clients that left, 4xx of the homeserver, or failures without a move", async () => {
    bench = await Bench.start([]);
    const open: ServerResponse[] = [];
    const old = await bench.origin((_request, response) => void open.push(response));
    await bench.controller.update([serving("a", old)]);
    const early = ask(bench, "a.example", { method: "POST", body: "{}" });
    await eventually("it is at the shard", () => open.length === 1);
    open[0]!.writeHead(500).end();
    await early;
    const late = ask(bench, "a.example", { method: "POST", body: "{}" });
    await eventually("it is at the shard", () => open.length === 2);
    await bench.controller.update([parked("a", 1, old)]);
    open[1]!.writeHead(404).end();
    await late;
    const gone = new AbortController();
    const left = ask(bench, "a.example", { signal: gone.signal }).catch(() => "left");
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    gone.abort();
    await left;
    await eventually("its place is free", async () => (await bench.parkedNow("a")) === 0);
    const { parks } = await bench.controller.update([serving("a", await bench.origin(), 2)]);
    expect(parks).toEqual({ a: { parked: 1, failed: 0 } });
  });
});

describe("a shard that is given up", () => {
  it("costs a request that hangs there no more time than the controller's word takes: GETs and PUTs are sent again", async () => {
    bench = await Bench.start([]);
    let hanging = 0;
    const frozen = await bench.origin(() => void (hanging += 1));
    await bench.controller.update([serving("a", frozen)]);
    const answers = ["GET", "PUT"].map((method) =>
      ask(bench, "a.example", { method, body: method === "PUT" ? "x" : undefined }),
    );
    await eventually("both hang", () => hanging === 2);
    await bench.controller.update([parked("a")]);
    await eventually("both wait", async () => (await bench.parkedNow("a")) === 2);
    const fresh = await bench.origin();
    await bench.controller.update([serving("a", fresh, 2)]);
    for (const answer of await Promise.all(answers))
      expect([answer.status, answer.json.port]).toEqual([200, fresh.port]);
  });

  it("fails a POST that hangs there within seconds, and counts it", async () => {
    bench = await Bench.start([]);
    let hanging = 0;
    const frozen = await bench.origin(() => void (hanging += 1));
    await bench.controller.update([serving("a", frozen)]);
    const answer = ask(bench, "a.example", { method: "POST", body: "{}" });
    await eventually("it hangs", () => hanging === 1);
    await bench.controller.update([parked("a")]);
    expect((await answer).status).toBe(502);
    const { parks } = await bench.controller.update([serving("a", await bench.origin(), 2)]);
    expect(parks).toEqual({ a: { parked: 0, failed: 1 } });
  });

  it("lets an answer through that has begun, or is on its way", async () => {
    bench = await Bench.start([]);
    const open: Record<string, ServerResponse> = {};
    const old = await bench.origin((request, response) => {
      open[request.url!] = response;
      if (request.url === "/begun") response.write("be");
    });
    await bench.controller.update([serving("a", old)]);
    const begun = ask(bench, "a.example", { path: "/begun" });
    const posted = ask(bench, "a.example", { path: "/post", method: "POST", body: "{}" });
    await eventually("both are there", () => Object.keys(open).length === 2);
    await bench.controller.update([parked("a")]);
    open["/begun"]!.end("gun");
    open["/post"]!.end("late");
    expect([(await begun).text, (await posted).text]).toEqual(["begun", "late"]);
  });
});
