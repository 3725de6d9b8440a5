import { afterEach, describe, expect, it } from "vitest";
import { ask, Bench, serving, Wire } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

describe("routing by host", () => {
  it("a request reaches its own tenant", async () => {
    bench = await Bench.start([]);
    const [a, b] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([serving("a", a), serving("b", b)]);
    expect((await ask(bench, "a.example")).json.port).toBe(a.port);
    expect((await ask(bench, "b.example")).json.port).toBe(b.port);
    expect((await ask(bench, "B.Example:8448")).json.port).toBe(b.port);
    expect((await ask(bench, "b.example.")).json.port).toBe(b.port);
  });

  it("a host with a port leads to the tenant of the bare name", async () => {
    bench = await Bench.start([]);
    const [a, b] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([serving("a", a), { ...serving("b", b), hosts: ["a.example:8449"] }]);
    expect((await ask(bench, "a.example:8449")).json.port).toBe(b.port);
    expect((await ask(bench, "a.example:8448")).json.port).toBe(a.port);
  });

  it("an unknown host is refused", async () => {
    bench = await Bench.start([]);
    for (let i = 0; i < 20; i += 1) {
      const answer = await ask(bench, `nobody-${i}.example`);
      expect(answer.status).toBe(404);
      expect(answer.json.errcode).toBe("M_NOT_FOUND");
      expect(answer.headers["access-control-allow-origin"]).toBe("*");
      expect(answer.headers["x-synapse-shards-error"]).toBe("UnknownHost");
    }
    expect(await bench.metrics()).not.toContain("nobody");
    expect(await bench.metric('refused_total{status="404"}')).toBe(20);
  });

  it("believes no client about itself, and passes on no hop-by-hop header", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    await ask(bench, "a.example", {
      headers: {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        Forwarded: "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
        Connection: "close, X-Hop",
        "X-Hop": "1",
        "X-End": "2",
        TE: "trailers",
      },
    });
    const { headers } = origin.seen[0]!;
    expect(headers).toMatchObject({
      host: "a.example",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "http",
      "x-forwarded-host": "a.example",
      "x-end": "2",
    });
    for (const name of ["forwarded", "x-real-ip", "x-hop", "te"]) expect(headers).not.toHaveProperty(name);
  });

  it("answers keep their status, repeated headers and bytes", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin((request, response) => {
      response.writeHead(418, "I am", [
        "Set-Cookie",
        "a=1",
        "Set-Cookie",
        "b=2",
        "X-Latin",
        "\u00e9",
        "Keep-Alive",
        "timeout=1",
      ]);
      response.end(request.method === "HEAD" ? undefined : Buffer.from([0, 255, 10]));
    });
    await bench.controller.update([serving("a", origin)]);
    const answer = await ask(bench, "a.example");
    expect(answer.status).toBe(418);
    expect(answer.headers["set-cookie"]).toEqual(["a=1", "b=2"]);
    expect(answer.headers["x-latin"]).toBe("\u00e9");
    expect((await ask(bench, "a.example", { method: "HEAD" })).text).toBe("");
  });

  it("the answer to a HEAD keeps its length, without the homeserver's connection headers", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin((_request, response) => {
      response.writeHead(200, "Fine", [
        ["Set-Cookie", "a=1"],
        ["X-Name", "Zo\u00eb"],
        ["Set-Cookie", "b=2"],
        ["Connection", "keep-alive, X-Hop"],
        ["X-Hop", "1"],
        ["Content-Length", "7"],
      ] as never);
      response.end();
    });
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send("HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    await wire.sees("\r\n\r\n");
    expect(wire.text).toMatch(/^HTTP\/1\.1 200 Fine\r\n/);
    expect(wire.text.match(/^set-cookie: .*$/gim)).toEqual(["set-cookie: a=1", "set-cookie: b=2"]);
    expect(wire.text).toMatch(/^x-name: Zo\u00eb\r$/im);
    expect(wire.text).toMatch(/^content-length: 7\r$/im);
    expect(wire.text).not.toMatch(/x-hop/i);
    wire.destroy();
  });

  it("a removed host's requests do not reach its next owner early", async () => {
    bench = await Bench.start([]);
    const [a, b] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([serving("a", a)]);
    await bench.controller.update([{ ...serving("b", b), hosts: ["a.example"] }], ["a"]);
    expect((await ask(bench, "a.example")).json.port).toBe(b.port);
    await bench.controller.update([], ["b"]);
    expect((await ask(bench, "a.example")).status).toBe(404);
  });

  it("an unavailable tenant is a 503, not a 404", async () => {
    bench = await Bench.start([
      { tenant: "a", hosts: ["a.example"], state: "unavailable", epoch: 1, reason: "Failed" },
    ]);
    const answer = await ask(bench, "a.example");
    expect(answer.status).toBe(503);
    expect(answer.headers["retry-after"]).toMatch(/^\d+$/);
    expect(answer.json.error).toContain("Failed");
  });
});

describe("request heads", () => {
  it.each([
    ["no Host", "GET / HTTP/1.1\r\n\r\n", 400],
    ["no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400],
    ["two Hosts", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400],
    ["a Host that is none", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400],
    ["a URL of another host", "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400],
    ["a URL with a user", "GET http://a.example@b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", 400],
    ["a URL of another kind", "GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400],
    ["the admin API in a URL", "GET http://a.example/_synapse/admin/x HTTP/1.1\r\nHost: a.example\r\n\r\n", 403],
    [
      "length and chunks",
      "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      400,
    ],
    ["two lengths", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400],
    ["unknown coding", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400],
    ["nonsense", "\u0000\u0001\u0002\r\n\r\n", 400],
    ["a huge header", `GET / HTTP/1.1\r\nHost: a.example\r\nX: ${"x".repeat(20_000)}\r\n\r\n`, 431],
    ["too many headers", `GET / HTTP/1.1\r\nHost: a.example\r\n${"X: 1\r\n".repeat(200)}\r\n`, 431],
  ])("%s is not taken for a request", async (_what, text, status) => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send(text);
    await wire.sees("errcode");
    expect(wire.text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(wire.text).toContain("Access-Control-Allow-Origin: *");
    expect(origin.seen).toEqual([]);
    wire.destroy();
  });

  it.each([
    ["http://a.example/p?q=1", "a.example", "/p?q=1"],
    ["HTTP://A.Example./p", "a.example", "/p"],
    ["http://a.example:80/p", "a.example", "/p"],
    ["https://a.example/p", "a.example:443", "/p"],
    ["http://a.example:8008/p", "a.example:8008", "/p"],
    ["http://a.example", "a.example", "/"],
    ["http://a.example?q", "a.example", "/?q"],
  ])("takes %s with Host %s for %s", async (target, host, path) => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    await wire.sees("HTTP/1.1 200");
    expect(origin.seen[0]!.url).toBe(path);
    wire.destroy();
  });

  it("serves HTTP/1.0 with a Host, and requests that offer an upgrade", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const old = new Wire(bench.port).send("GET /old HTTP/1.0\r\nHost: a.example\r\n\r\n");
    await old.isClosed();
    expect(old.text).toMatch(/^HTTP\/1\.1 200 /);
    expect(old.text).not.toContain("chunked");
    const answer = await ask(bench, "a.example", { headers: { Connection: "Upgrade", Upgrade: "websocket" } });
    expect(answer.status).toBe(200);
    expect(origin.seen.at(-1)!.headers).not.toHaveProperty("upgrade");
  });
});
