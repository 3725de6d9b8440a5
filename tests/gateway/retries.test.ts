import { afterEach, describe, expect, it } from "vitest";
import type { IncomingMessage, ServerResponse } from "node:http";
import { ask, Bench, eventually, Origin, parked, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

/** An address where nothing listens, and what may listen there later. */
async function deadOrigin(): Promise<Origin> {
  const origin = await new Origin().listen();
  await origin.close();
  return origin;
}

describe("a homeserver that does not answer", () => {
  it.each(["GET", "PUT", "POST"])("a refused %s waits until the shard is up again on its port", async (method) => {
    bench = await Bench.start([]);
    const dead = await deadOrigin();
    await bench.controller.update([serving("a", dead)]);
    const answer = ask(bench, "a.example", method === "GET" ? {} : { method, body: "content" });
    await eventually(
      "it was refused twice",
      async () => (await bench.metric('upstream_retries_total{tenant="a",reason="refused"}')) >= 2,
    );
    expect(await bench.parkedNow("a")).toBe(1);
    const revived = await new Origin().listen(dead.port);
    try {
      expect((await answer).status).toBe(200);
      expect(revived.seen).toHaveLength(1);
      expect(revived.seen[0]!.body.toString()).toBe(method === "GET" ? "" : "content");
    } finally {
      await revived.close();
    }
  });

  it("a refused upload is sent again with its body", async () => {
    bench = await Bench.start([]);
    const dead = await deadOrigin();
    await bench.controller.update([serving("a", dead)]);
    const body = Buffer.alloc(5_000_000, "u");
    const answer = ask(bench, "a.example", { method: "POST", body });
    await eventually(
      "it was refused",
      async () => (await bench.metric('upstream_retries_total{tenant="a",reason="refused"}')) >= 1,
    );
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    expect((await answer).json.bytes).toBe(body.length);
    expect(origin.seen[0]!.body.equals(body)).toBe(true);
  });

  it("a refused request counts in the move that it belongs to", async () => {
    bench = await Bench.start([]);
    await bench.controller.update([serving("a", await deadOrigin())]);
    const answer = ask(bench, "a.example");
    await eventually("it was refused", async () => (await bench.parkedNow("a")) === 1);
    await bench.controller.update([parked("a")]);
    const origin = await bench.origin();
    expect((await bench.controller.update([serving("a", origin)])).parks).toEqual({ a: { parked: 1, failed: 0 } });
    expect((await answer).json.port).toBe(origin.port);
  });

  it("bounds the wait of refused requests", async () => {
    bench = await Bench.start([], { parking: { maxRequests: 10, maxBytes: 100_000, maxSeconds: 0.4 } });
    await bench.controller.update([serving("a", await deadOrigin())]);
    const answer = await ask(bench, "a.example");
    expect(answer.status).toBe(503);
    expect(answer.headers["retry-after"]).toBeDefined();
  });

  it("an idle connection that the homeserver just closed costs no request", async () => {
    bench = await Bench.start([]);
    let answered = 0;
    // Answers once per connection and breaks it on the second request, as a server does that closes idle connections just then.
    const perSocket = new WeakMap<object, number>();
    const origin = await bench.origin((request: IncomingMessage, response: ServerResponse) => {
      const count = (perSocket.get(request.socket) ?? 0) + 1;
      perSocket.set(request.socket, count);
      if (count > 1) return void request.socket.destroy();
      answered += 1;
      request.resume();
      response.end("{}");
    });
    await bench.controller.update([serving("a", origin)]);
    for (const method of ["GET", "PUT", "DELETE", "GET"]) {
      expect((await ask(bench, "a.example", { method, body: method === "PUT" ? "x" : undefined })).status).toBe(200);
    }
    expect(answered).toBe(4);
    expect(await bench.metric('upstream_retries_total{tenant="a",reason="cut"}')).toBeGreaterThan(0);
  });

  it("does not repeat a POST that may have been acted upon", async () => {
    bench = await Bench.start([]);
    let posts = 0;
    const origin = await bench.origin((request) => {
      posts += 1;
      request.socket.destroy();
    });
    await bench.controller.update([serving("a", origin)]);
    const answer = await ask(bench, "a.example", { method: "POST", body: "{}" });
    expect(answer.status).toBe(502);
    expect(answer.json.errcode).toBe("M_UNKNOWN");
    expect(posts).toBe(1);
  });

  it("does not repeat a request that kills its homeserver without end", async () => {
    bench = await Bench.start([]);
    let attempts = 0;
    const origin = await bench.origin((request) => {
      attempts += 1;
      request.socket.destroy();
    });
    await bench.controller.update([serving("a", origin)]);
    expect((await ask(bench, "a.example")).status).toBe(502);
    expect(attempts).toBe(4);
  });

  it("half an answer is not taken for a whole one", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin((_request, response) => {
      response.write("half");
      setTimeout(() => response.socket?.destroy(), 20);
    });
    await bench.controller.update([serving("a", origin)]);
    await expect(ask(bench, "a.example")).rejects.toThrow(/aborted|hang up|reset/);
  });

  it("sends long polls of a killed shard to the new one", async () => {
    bench = await Bench.start([]);
    const polls: IncomingMessage[] = [];
    const dying = await bench.origin((request) => void polls.push(request));
    await bench.controller.update([serving("a", dying)]);
    const answers = Array.from({ length: 5 }, () =>
      ask(bench, "a.example", { path: "/_matrix/client/v3/sync?timeout=30000&access_token=syt_secret" }),
    );
    await eventually("they poll", () => polls.length === 5);
    dying.server.close();
    dying.cut();
    await eventually("they wait", async () => (await bench.parkedNow("a")) === 5);
    const fresh = await bench.origin();
    await bench.controller.update([serving("a", fresh, 2)]);
    for (const answer of await Promise.all(answers))
      expect([answer.status, answer.json.port]).toEqual([200, fresh.port]);
    expect(bench.logged.join("")).not.toContain("syt_secret");
  });

  it("ends the homeserver's work for a client that went away", async () => {
    bench = await Bench.start([]);
    let closed = 0;
    let open = 0;
    const origin = await bench.origin((_request, response) => {
      open += 1;
      response.on("close", () => {
        closed += 1;
      });
    });
    await bench.controller.update([serving("a", origin)]);
    const gone = new AbortController();
    const answer = ask(bench, "a.example", { signal: gone.signal }).catch(() => "gone");
    await eventually("it polls", () => open === 1);
    gone.abort();
    await answer;
    expect(await eventually("the homeserver knows", () => closed === 1)).toBe(true);
  });
});
