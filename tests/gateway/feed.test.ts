import { readFile, stat, writeFile } from "node:fs/promises";
import { afterEach, describe, expect, it } from "vitest";
import { ask, Bench, eventually, parked, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

describe("the route feed", () => {
  it("a gateway that knows no routes yet answers 503, not 404", async () => {
    bench = await Bench.start(undefined);
    const answer = await ask(bench, "a.example");
    expect(answer.status).toBe(503);
    expect(answer.headers["retry-after"]).toMatch(/^\d+$/);
    expect(await bench.metric("feed_connected")).toBe(0);
    const origin = await bench.origin();
    bench.controller.routes = [serving("a", origin)];
    await bench.controller.listen(bench.controller.port);
    await eventually("it serves", async () => (await ask(bench, "a.example")).status === 200);
    expect((await ask(bench, "b.example")).status).toBe(404);
    expect(await bench.metric("feed_connected")).toBe(1);
  });

  it("tells how many requests dedicated homeservers have answered, all of them to each controller first", async () => {
    bench = await Bench.start([], {}, { tellAnsweredMs: 20 });
    const origin = await bench.origin();
    const { answered } = bench.controller;
    const dedicated = (epoch: number) => ({ ...serving("a", origin, epoch), dedicated: true as const });
    await eventually("the first word", () => answered.find(({ all }) => all));
    expect(answered[0]).toMatchObject({ all: true, tenants: {} });
    await bench.controller.update([dedicated(3), serving("b", origin)]);
    const told = (requests: number) =>
      eventually(`${requests} are told`, () => answered.find(({ tenants }) => tenants["a"]?.requests === requests));
    bench.controller.refusesRequests = 500;
    for (const host of ["a.example", "a.example", "b.example"]) await ask(bench, host);
    await told(2);
    bench.controller.refusesRequests = 0;
    const before = answered.length;
    await eventually("told again", () => answered.length > before);
    expect(answered.at(-1)).toMatchObject({ all: false, tenants: { a: { epoch: 3, requests: 2 } } });
    expect(answered.some(({ tenants }) => tenants["b"])).toBe(false);
    // Another controller may not know any of it.
    await bench.controller.close();
    await eventually("it is noticed", async () => (await bench.metric("feed_connected")) === 0);
    answered.length = 0;
    await bench.controller.listen(bench.controller.port);
    expect(await told(2)).toMatchObject({ all: true });
    await bench.controller.update([dedicated(4)]);
    await ask(bench, "a.example");
    expect((await told(1)).tenants["a"]?.epoch).toBe(4);
  });

  it("leaves a controller of an earlier version alone, which counts no requests", async () => {
    bench = await Bench.start(undefined, {}, { tellAnsweredMs: 20 });
    bench.controller.refusesRequests = 404;
    bench.controller.routes = [];
    await bench.controller.listen(bench.controller.port);
    const { answered } = bench.controller;
    await eventually("the first word", () => answered.length > 0);
    const origin = await bench.origin();
    await bench.controller.update([{ ...serving("a", origin, 1), dedicated: true as const }]);
    await ask(bench, "a.example");
    await eventually("what is counted", () => answered.some(({ tenants }) => tenants["a"]));
    // Told once each, not again and again.
    expect(answered.map(({ all }) => all)).toEqual([true, false]);
  });

  it("serves without the controller, also after a restart", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    await bench.controller.close();
    await eventually("it is noticed", async () => (await bench.metric("feed_connected")) === 0);
    expect((await ask(bench, "a.example")).status).toBe(200);
    await bench.gateway.stop(0);
    await bench.restart();
    expect((await ask(bench, "a.example")).status).toBe(200);
    expect((await ask(bench, "b.example")).status).toBe(503);
  });

  it("routes on disk are whole, and readable by their owner only", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin), parked("b")]);
    await eventually("they are on disk", async () => {
      const text = await readFile(bench.file("routes.json"), "utf8").catch(() => '{"routes":[]}');
      const { routes } = JSON.parse(text) as { routes: { tenant: string }[] };
      return routes.map((route) => route.tenant).join() === "a,b";
    });
    expect((await stat(bench.file("routes.json"))).mode & 0o777).toBe(0o600);
  });

  it("starts with a broken routes file", async () => {
    bench = await Bench.start([]);
    await bench.gateway.stop(0);
    await writeFile(bench.file("routes.json"), '{"format": 1, "routes": [{"tenant": 7}]}');
    await bench.restart();
    expect(bench.logged.join("")).toContain("routes.0.tenant");
    await eventually("the controller's word counts", async () => (await ask(bench, "a.example")).status === 404);
  });

  it("follows a controller that counts from the start again", async () => {
    bench = await Bench.start([]);
    const [one, two] = [await bench.origin(), await bench.origin()];
    for (let i = 0; i < 5; i += 1) await bench.controller.update([serving("a", one), parked("b")]);
    const { port } = bench.controller;
    await bench.controller.close();
    bench.controller.version = 0;
    bench.controller.routes = [serving("a", two)];
    bench.controller.acks.length = 0;
    await bench.controller.listen(port);
    const ack = await bench.controller.acknowledged(0);
    expect(ack.version).toBe(0);
    expect(ack.parks).toEqual({ b: { parked: 0, failed: 0 } });
    expect((await ask(bench, "a.example")).json.port).toBe(two.port);
    expect((await ask(bench, "b.example")).status).toBe(404);
    expect((await bench.controller.update([serving("a", one)])).version).toBe(1);
  });

  it("has a tenant unavailable whose route it cannot read, nobody else in its place, and all others as they are told", async () => {
    bench = await Bench.start([]);
    const [origin, other] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([serving("a", origin), serving("b", origin), serving("c", origin)]);
    const bad = [
      { ...serving("a", origin), address: "http://evil/", secret: "of-the-shard" },
      { ...serving("c", origin), authentication: "sho!p:80" },
    ];
    // One that has no name at all is nobody's.
    const nameless = { hosts: ["c.example"], state: "serving", address: other.address, epoch: 1 };
    const claimant = { ...serving("d", other), hosts: ["a.example", "d.example"] };
    await bench.controller.update([...bad, nameless as never, claimant, serving("b", other, 2)]);
    const seen = async () =>
      Promise.all(["a", "b", "c", "d"].map(async (name) => (await ask(bench, `${name}.example`)).json.port));
    expect(await seen()).toEqual([undefined, other.port, undefined, other.port]);
    const answer = await ask(bench, "a.example");
    expect(answer).toMatchObject({
      status: 503,
      json: { error: expect.stringContaining("UnreadableRoute") as string },
    });
    expect(bench.controller.gateways).toHaveLength(1);
    // The same from a snapshot.
    const { port } = bench.controller;
    await bench.controller.close();
    await bench.controller.listen(port);
    await eventually("it connects again", () => bench.controller.gateways.length === 2);
    expect(await seen()).toEqual([undefined, other.port, undefined, other.port]);
    await bench.controller.update([serving("a", origin)]);
    expect((await ask(bench, "a.example")).json.port).toBe(origin.port);
    const logged = bench.logged.filter((line) => line.includes("routes cannot be read"));
    expect(logged[0]).toMatch(/a: address: host:port.*c: authentication: host:port or https:.*a tenant: tenant/);
    expect(logged.join("")).not.toContain("of-the-shard");
  });

  it("passes over lines that do not follow the contract", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    bench.controller.line({ type: "update", version: 99, routes: [], removed: "a" });
    await eventually("it connects again", () => bench.controller.gateways.length === 2);
    expect((await ask(bench, "a.example")).status).toBe(200);
    expect(bench.controller.acks.some((ack) => ack.version === 99)).toBe(false);
  });

  it("takes up a replaced token, and logs none", async () => {
    bench = await Bench.start(undefined);
    await writeFile(bench.file("token"), "wrong-secret-token");
    await bench.controller.listen(bench.controller.port);
    await eventually("it is turned away", () => bench.controller.unauthorized > 0);
    await writeFile(bench.file("token"), "feed-token-for-tests");
    await eventually("it is let in", () => bench.controller.connected === 1);
    expect(bench.logged.join("")).not.toMatch(/wrong-secret-token|feed-token-for-tests/);
  });

  it("each run of a gateway has a name of its own", async () => {
    bench = await Bench.start([], { id: "edge" });
    const { id } = bench.ready;
    expect(JSON.parse(await readFile(bench.file("ready.json"), "utf8"))).toEqual({ ...bench.ready });
    expect(id).toMatch(/^edge-/);
    expect(bench.controller.gateways).toEqual([id]);
    expect(bench.controller.acks[0]!.gateway).toBe(id);
    await bench.gateway.stop(0);
    await bench.restart({ id: "edge" });
    expect(bench.ready.id).not.toBe(id);
  });

  it("closes connections to addresses that tenants left", async () => {
    bench = await Bench.start([]);
    const old = await bench.origin();
    await bench.controller.update([serving("a", old)]);
    await ask(bench, "a.example");
    expect(old.open).toBe(1);
    await bench.controller.update([parked("a")]);
    // Otherwise it would stay open for half a minute.
    expect(await eventually("it is closed", () => old.open === 0)).toBe(true);
  });

  it("a connection in use when its tenant leaves ends after its answer", async () => {
    bench = await Bench.start([]);
    let answer: (() => void) | undefined;
    const old = await bench.origin((_request, response) => {
      answer = () => response.end("{}");
    });
    await bench.controller.update([serving("a", old)]);
    const poll = ask(bench, "a.example");
    await eventually("it polls", () => answer !== undefined);
    await bench.controller.update([serving("a", await bench.origin(), 2)]);
    answer?.();
    expect((await poll).status).toBe(200);
    expect(await eventually("it is closed", () => old.open === 0)).toBe(true);
  });
});
