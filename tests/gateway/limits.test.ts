import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { networkOf, connectionsByDescriptors } from "../../src/gateway/connections.ts";
import { HeldMemory } from "../../src/gateway/held-memory.ts";
import { ask, Bench, eventually, parked, serving, Wire } from "./harness.ts";
import { writeFile } from "node:fs/promises";

let bench: Bench | undefined;
afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

describe("memory for requests that wait", () => {
  it("is bounded for all tenants together, and one tenant has a quarter", () => {
    const memory = new HeldMemory({ maxHeldBytes: 1000 });
    expect(memory.take("a", 250)).toBe(true);
    expect(memory.take("a", 1)).toBe(false);
    for (const tenant of ["b", "c"]) expect(memory.take(tenant, 250)).toBe(true);
    expect(memory.take("d", 249)).toBe(true);
    expect(memory.take("e", 2)).toBe(false);
    memory.give("a", 250);
    expect([memory.total, memory.take("e", 2)]).toEqual([749, true]);
  });

  it("is given back whatever becomes of a request: 1,500 bodies that are held one byte short leave their neighbours room, and end", async () => {
    bench = await Bench.start(
      [],
      { maxHeldBytes: 4 * 1024 * 1024, maxConnectionsPerAddress: 10_000 },
      { bodyStallMs: 1_500 },
    );
    const { port } = bench;
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin), serving("b", origin)]);
    let refused = 0;
    let ended = 0;
    let closed = 0;
    const body = Buffer.alloc(999, "x");
    for (let i = 0; i < 1_500; i += 1) {
      const socket = connect(port, "127.0.0.1");
      socket.write("POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a.example\r\nContent-Length: 30000\r\n\r\n");
      socket.write(body);
      socket.on("data", (chunk: Buffer) => {
        const text = chunk.toString("latin1");
        if (text.startsWith("HTTP/1.1 503 ") && text.includes("Retry-After")) refused += 1;
        if (text.startsWith("HTTP/1.1 408 ")) ended += 1;
        socket.destroy();
      });
      socket.on("error", () => {}).on("close", () => (closed += 1));
    }
    await eventually("the tenant's part is taken", async () => (await bench!.metric("held_bytes")) > 900_000);
    expect(await bench.metric("held_bytes")).toBeLessThanOrEqual(1024 * 1024);
    expect((await ask(bench, "b.example", { method: "POST", body: Buffer.alloc(60_000) })).status).toBe(200);
    await eventually("all have ended", () => closed === 1_500);
    expect(refused + ended).toBe(1_500);
    expect(ended).toBeGreaterThan(20);
    await eventually("the memory is free", async () => (await bench!.metric("held_bytes")) === 0);
    expect((await ask(bench, "a.example", { method: "POST", body: Buffer.alloc(60_000) })).status).toBe(200);
  }, 60_000);

  it("counts parked requests of many tenants", async () => {
    const tenants = ["a", "b", "c", "d", "e", "f"];
    bench = await Bench.start(
      tenants.map((name) => parked(name)),
      { maxHeldBytes: 1024 * 1024 },
    );
    const wires = tenants
      .slice(0, 5)
      .flatMap((name) =>
        Array.from({ length: 3 }, () =>
          new Wire(bench!.port).send(`PUT / HTTP/1.1\r\nHost: ${name}.example\r\nContent-Length: 9000000\r\n\r\n`),
        ),
      );
    await eventually("they wait", async () => (await bench!.metric("held_bytes")) > 15 * 64 * 1024);
    const last = Array.from({ length: 3 }, () =>
      new Wire(bench!.port).send("PUT / HTTP/1.1\r\nHost: f.example\r\nContent-Length: 9000000\r\n\r\n"),
    );
    await eventually("one finds no room", () => last.some((wire) => wire.text.startsWith("HTTP/1.1 503 ")));
    expect(await bench.metric("held_bytes")).toBeLessThanOrEqual(1024 * 1024);
    for (const wire of [...wires, ...last]) wire.destroy();
    await eventually("the memory is free", async () => (await bench!.metric("held_bytes")) === 0);
  });
});

describe("slow bodies", () => {
  it.each([20_000, 200_000])("end when %i bytes come at a few a second, however steadily", async (size) => {
    bench = await Bench.start([], {}, { bodyGraceMs: 200 });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send(`POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${size}\r\n\r\n`);
    const drip = setInterval(() => wire.send("x"), 20);
    await wire.sees("HTTP/1.1 408 ");
    clearInterval(drip);
    expect(wire.text).toContain("bytes per second");
    wire.destroy();
  });

  it("are not those that a slow homeserver holds up", async () => {
    bench = await Bench.start([], {}, { bodyGraceMs: 100 });
    let begin: (() => void) | undefined;
    const origin = await bench.origin((request, response) => {
      let bytes = 0;
      begin = () => {
        request.on("data", (chunk: Buffer) => (bytes += chunk.length));
        request.on("end", () => response.end(JSON.stringify({ bytes })));
      };
    });
    await bench.controller.update([serving("a", origin)]);
    const body = Buffer.alloc(30 * 1024 * 1024);
    const answer = ask(bench, "a.example", { method: "POST", body });
    await eventually("it has begun", () => begin);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    begin!();
    expect((await answer).json.bytes).toBe(body.length);
  });
});

describe("connections", () => {
  it("from one address are bounded, and free again when they close", async () => {
    bench = await Bench.start([], { maxConnectionsPerAddress: 5 });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const wires = Array.from({ length: 5 }, () => new Wire(bench!.port));
    await eventually("they are open", async () => (await bench!.metric("client_connections")) === 5);
    await expect(ask(bench, "a.example")).rejects.toThrow(/hang up|reset/);
    expect(await bench.metric('connections_refused_total{bound="address"}')).toBe(1);
    wires[0]!.destroy();
    await eventually("one is gone", async () => (await bench!.metric("client_connections")) === 4);
    expect((await ask(bench, "a.example")).status).toBe(200);
    for (const wire of wires) wire.destroy();
  });

  it("from trusted proxies are not bounded by address", async () => {
    bench = await Bench.start([], { maxConnectionsPerAddress: 2, trustedProxies: ["127.0.0.0/8"] });
    const wires = Array.from({ length: 6 }, () => new Wire(bench!.port));
    await eventually("they are open", async () => (await bench!.metric("client_connections")) === 6);
    expect(await bench.metric('connections_refused_total{bound="address"}')).toBe(0);
    for (const wire of wires) wire.destroy();
  });

  it.each([
    ["10.1.2.3", "10.1.2.3"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:db8:1:2::6", "2001:db8:1:2"],
    ["2001:db8::6", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
    ["fe80::1%eth0", "fe80:0:0:0"],
  ])("from %s count for %s", (address, network) => {
    expect(networkOf(address)).toBe(network);
  });

  it("are no more than there are descriptors for, two each", async () => {
    bench = await Bench.start([]);
    const file = bench.file("limits");
    await writeFile(file, "Limit  Soft  Hard  Units\nMax open files            1024                 4096     files\n");
    expect(connectionsByDescriptors(file)).toBe(480);
    await writeFile(file, "Max open files            unlimited            unlimited            files\n");
    expect(connectionsByDescriptors(file)).toBe(Number.POSITIVE_INFINITY);
    expect(connectionsByDescriptors(bench.file("none"))).toBe(480);
  });
});
