import { afterEach, describe, expect, it } from "vitest";
import { isAdminPath } from "../../src/gateway/admission.ts";
import { ask, Bench, eventually, serving, Wire } from "./harness.ts";

describe("the admin API's path", () => {
  it.each([
    "/_synapse/admin",
    "/_synapse/admin/v1/users",
    "/_synapse/admin?x",
    "/_synapse/admin;x=1/v1",
    "/%5fsynapse/admin/v1",
    "/_synapse/%61dmin",
    "/_synapse/%2561dmin",
    "/_synapse%2fadmin/v1",
    "/_synapse%252Fadmin/v1",
    "//_synapse///admin//v1",
    "/./_synapse/./admin",
    "/_matrix/../_synapse/admin",
    "/_matrix/%2e%2e/_synapse/admin",
    "/_synapse/client/..%2fadmin",
    "/_synapse/admin/../client",
    "/_synapse\\admin",
    "/_SYNAPSE/Admin/v1",
    `/_synapse/%${"25".repeat(20)}61dmin`,
  ])("the admin API is not reached as %s", (path) => {
    expect(isAdminPath(path)).toBe(true);
  });

  it.each([
    "/",
    "/_matrix/client/v3/sync?filter=/_synapse/admin",
    "/_synapse/client/pick_idp",
    "/_synapse/administer",
    "/x/_synapse/admin",
    "/_matrix/client/v3/rooms/%21a%3Ab/send/m.room.message/%252e%252e",
    "/_matrix/100%",
  ])("refuses %s", (path) => {
    expect(isAdminPath(path)).toBe(false);
  });
});

describe("limits", () => {
  let bench: Bench;
  afterEach(() => bench.stop());

  it("the admin API is closed by default, and can be opened", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const answer = await ask(bench, "a.example", { path: "/_synapse/%61dmin/v1/server_version" });
    expect([answer.status, answer.json.errcode]).toEqual([403, "M_FORBIDDEN"]);
    expect(origin.seen).toEqual([]);
    await bench.gateway.stop(0);
    await bench.restart({ adminApi: true });
    await eventually("routes", async () => (await bench.metric("routes_version")) > 0);
    expect((await ask(bench, "a.example", { path: "/_synapse/admin/v1/server_version" })).status).toBe(200);
  });

  it("refuses an announced body above the limit before it begins", async () => {
    bench = await Bench.start([], { maxBodyBytes: 1024 });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const answer = await ask(bench, "a.example", { method: "POST", body: "x".repeat(1025) });
    expect([answer.status, answer.json.errcode]).toEqual([413, "M_TOO_LARGE"]);
    expect((await ask(bench, "a.example", { method: "POST", body: "x".repeat(1024) })).status).toBe(200);
    expect(origin.seen).toHaveLength(1);
  });

  it.each([2_000, 300_000])("ends a chunked body at a limit of %i bytes", async (maxBodyBytes) => {
    bench = await Bench.start([], { maxBodyBytes });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    const chunk = `400\r\n${"x".repeat(1024)}\r\n`;
    for (let sent = 0; sent < maxBodyBytes + 2048; sent += 1024) wire.send(chunk);
    await wire.sees("M_TOO_LARGE");
    expect(wire.text).toMatch(/^HTTP\/1\.1 413 /);
    expect(origin.seen).toEqual([]);
    wire.destroy();
  });

  it("passes on a chunked body below the limit unchanged", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    for (const size of [0, 10, 65_536, 65_537, 1_000_000]) {
      const body = Buffer.alloc(size, "ab");
      const answer = await ask(bench, "a.example", {
        method: "PUT",
        body,
        headers: { "Transfer-Encoding": "chunked" },
      });
      expect(answer.status).toBe(200);
      expect(origin.seen.at(-1)!.body.equals(body)).toBe(true);
    }
  });

  it("bounds the time of a request's head", async () => {
    bench = await Bench.start([], {}, { headersMs: 300, checkMs: 50 });
    const wire = new Wire(bench.port).send("GET / HTTP/1.1\r\nHost: a.exa");
    await wire.isClosed();
    expect(wire.text).toMatch(/^HTTP\/1\.1 408 /);
    expect(wire.text).toContain("M_UNKNOWN");
  });

  it.each([10, 1_000_000])("bounds how long a body of %i bytes may stop half-way", async (length) => {
    bench = await Bench.start([], {}, { bodyStallMs: 300 });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send(`PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${length}\r\n\r\nabc`);
    await wire.sees("HTTP/1.1 408");
    expect(origin.seen).toEqual([]);
    wire.destroy();
  });

  it("lets a slow but steady upload through", async () => {
    bench = await Bench.start([], {}, { bodyStallMs: 500, headersMs: 300, checkMs: 50 });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const piece = "x".repeat(10_000);
    const wire = new Wire(bench.port).send(
      `PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${20 * piece.length}\r\n\r\n`,
    );
    for (let i = 0; i < 20; i += 1) {
      wire.send(piece);
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    await wire.sees("HTTP/1.1 200");
    expect(origin.seen[0]!.body.length).toBe(20 * piece.length);
    wire.destroy();
  });

  it("refuses an unknown expectation", async () => {
    bench = await Bench.start([]);
    const wire = new Wire(bench.port).send("GET / HTTP/1.1\r\nHost: a.example\r\nExpect: miracles\r\n\r\n");
    await wire.sees("M_UNKNOWN");
    expect(wire.text).toMatch(/^HTTP\/1\.1 417 /);
    wire.destroy();
  });
});
