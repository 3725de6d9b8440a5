import { afterEach, describe, expect, it } from "vitest";
import type { IncomingMessage, ServerResponse } from "node:http";
import { ask, Bench, eventually, type Origin, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

const tenantHeader = "x-synapse-shards-tenant";

/** The new user of the port of a tenant that moved away: turns away what is meant for others, as shards do. */
function stranger(name: string, seen: IncomingMessage[]): Promise<Origin> {
  return bench.origin((request: IncomingMessage, response: ServerResponse) => {
    seen.push(request);
    request.resume();
    if (request.headers[tenantHeader] === name) return void response.end("{}");
    response.writeHead(421, { "X-Synapse-Shards": "misdirected", "Content-Type": "application/json" });
    response.end('{"errcode":"M_UNKNOWN"}');
  });
}

const retries = (tenant: string): Promise<number> =>
  bench.metric(`upstream_retries_total{tenant="${tenant}",reason="misdirected"}`);

describe("a port that another tenant has by now", () => {
  it("a client cannot choose the tenant that a request is meant for", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    await ask(bench, "a.example", { headers: { "X-Synapse-Shards-Tenant": "b", "x-synapse-SHARDS-tenant": ["c"] } });
    expect(origin.seen[0]!.headers[tenantHeader]).toBe("a");
  });

  it.each(["GET", "PUT", "POST", "DELETE"])(
    "a %s that reaches another tenant waits for the newer route",
    async (method) => {
      bench = await Bench.start([]);
      const seen: IncomingMessage[] = [];
      const other = await stranger("b", seen);
      await bench.controller.update([serving("a", other), serving("b", other)]);
      const body = ["PUT", "POST"].includes(method) ? "content" : undefined;
      const answer = ask(bench, "a.example", { method, body });
      await eventually("it was turned away twice", async () => (await retries("a")) >= 2);
      // Between two attempts.
      await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
      const right = await bench.origin();
      await bench.controller.update([serving("a", right, 2)]);
      expect([(await answer).status, (await answer).json.port]).toEqual([200, right.port]);
      expect(right.seen.map((one) => one.body.toString())).toEqual([body ?? ""]);
      expect((await ask(bench, "b.example")).status).toBe(200);
    },
  );

  it("a request that is turned away again and again is answered in time", async () => {
    bench = await Bench.start([], { parking: { maxRequests: 10, maxBytes: 100_000, maxSeconds: 0.5 } });
    const seen: IncomingMessage[] = [];
    const other = await stranger("b", seen);
    await bench.controller.update([serving("a", other)]);
    const answer = await ask(bench, "a.example");
    expect([answer.status, answer.json.errcode]).toEqual([503, "M_LIMIT_EXCEEDED"]);
    expect(answer.headers["retry-after"]).toBeDefined();
    expect(seen.length).toBeGreaterThan(1);
    expect(await bench.parkedNow("a")).toBe(0);
  });

  it("an upload that began at the wrong tenant is answered so that clients repeat it", async () => {
    bench = await Bench.start([]);
    const other = await stranger("b", []);
    await bench.controller.update([serving("a", other)]);
    const answer = await ask(bench, "a.example", { method: "POST", body: Buffer.alloc(500_000, "u") });
    expect([answer.status, answer.json.errcode]).toEqual([503, "M_LIMIT_EXCEEDED"]);
  });

  it("passes on a homeserver's own 421", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin((_request, response) => void response.writeHead(421).end("its own"));
    await bench.controller.update([serving("a", origin)]);
    const answer = await ask(bench, "a.example");
    expect([answer.status, answer.text]).toEqual([421, "its own"]);
    expect(await retries("a")).toBe(0);
  });
});
