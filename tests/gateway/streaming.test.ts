import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { ask, Bench, eventually, serving, Wire } from "./harness.ts";

const MiB = 1024 * 1024;
/** What kernels and Node buffer on two connections, generously. */
const BUFFERED_BYTES = 32 * MiB;

let bench: Bench;
afterEach(() => bench.stop());

describe("streaming", () => {
  it("a slow reader does not make the gateway hold a large download", async () => {
    bench = await Bench.start([]);
    const size = 200 * MiB;
    let produced = 0;
    const origin = await bench.origin((_request, response) => {
      response.writeHead(200, { "Content-Length": size });
      const piece = Buffer.alloc(MiB / 4, "d");
      const pump = (): void => {
        while (produced < size) {
          produced += piece.length;
          if (!response.write(piece)) return void response.once("drain", pump);
        }
        response.end();
      };
      pump();
    });
    await bench.controller.update([serving("a", origin)]);
    const before = process.memoryUsage().rss;
    const request = httpRequest({
      host: "127.0.0.1",
      port: bench.port,
      headers: { host: "a.example" },
      agent: false,
    }).end();
    const [response] = await once(request, "response");
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(produced).toBeLessThan(BUFFERED_BYTES);
    let read = 0;
    let most = 0;
    for await (const chunk of response) {
      read += (chunk as Buffer).length;
      if (read % (64 * MiB) < 65_536) await new Promise((resolve) => setTimeout(resolve, 20));
      expect(produced - read).toBeLessThan(BUFFERED_BYTES);
      most = Math.max(most, process.memoryUsage.rss() - before);
    }
    expect(read).toBe(size);
    // Client, gateway and origin are all in this process.
    expect(most).toBeLessThan(size);
  }, 60_000);

  it("a slow homeserver does not make the gateway hold a large upload", async () => {
    bench = await Bench.start([]);
    const size = 200 * MiB;
    let consumed = 0;
    let go: (() => void) | undefined;
    const origin = await bench.origin((request, response) => {
      request.pause();
      go = () => {
        request.on("data", (chunk: Buffer) => {
          consumed += chunk.length;
        });
        request.on("end", () => response.end(JSON.stringify({ bytes: consumed })));
        request.resume();
      };
      started = true;
    });
    let started = false;
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send(`POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${size}\r\n\r\n`);
    let sent = 0;
    const piece = Buffer.alloc(MiB / 4, "u");
    const pump = (): void => {
      while (sent < size) {
        sent += piece.length;
        if (!wire.socket.write(piece)) return void wire.socket.once("drain", pump);
      }
    };
    pump();
    await eventually("the upload began", () => started);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(sent).toBeLessThan(BUFFERED_BYTES);
    go?.();
    await wire.sees(`{"bytes":${size}}`);
    wire.destroy();
  }, 60_000);

  it("passes on pieces of a slow answer as they come", async () => {
    bench = await Bench.start([]);
    let finish: (() => void) | undefined;
    const origin = await bench.origin((_request, response) => {
      response.write("first");
      finish = () => response.end("last");
    });
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port).send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    await wire.sees("first");
    finish?.();
    expect(await wire.sees("last")).toBe(true);
    wire.destroy();
  });

  it("passes on an answer that comes before the upload's end", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin((request, response) => {
      if (request.url === "/next") return void response.end("next");
      response.writeHead(401, { "Content-Type": "application/json" });
      response.end('{"errcode":"M_UNKNOWN_TOKEN"}');
    });
    await bench.controller.update([serving("a", origin)]);
    const size = 3 * MiB;
    const wire = new Wire(bench.port).send(`POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${size}\r\n\r\n`);
    wire.socket.write(Buffer.alloc(size / 2));
    await wire.sees("M_UNKNOWN_TOKEN");
    wire.socket.write(Buffer.alloc(size / 2));
    wire.send("GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n");
    expect(await wire.sees("next")).toBe(true);
    wire.destroy();
  });

  it("answers the requests of one connection in order", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const wire = new Wire(bench.port);
    wire.send([1, 2, 3].map((i) => `PUT /${i} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nab`).join(""));
    await wire.sees('"/3"');
    expect([...wire.text.matchAll(/"url":"\/(\d)"/g)].map((match) => match[1])).toEqual(["1", "2", "3"]);
    wire.destroy();
  });

  it("long polls keep nobody waiting for a connection", async () => {
    bench = await Bench.start([]);
    const polls: (() => void)[] = [];
    const origin = await bench.origin((request, response) => {
      if (request.url === "/sync") polls.push(() => response.end("{}"));
      else response.end("{}");
    });
    await bench.controller.update([serving("a", origin)]);
    const answers = Array.from({ length: 200 }, () => ask(bench, "a.example", { path: "/sync" }));
    await eventually("all poll", () => polls.length === 200);
    expect((await ask(bench, "a.example")).status).toBe(200);
    for (const poll of polls) poll();
    for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  });

  it("a burst of long polls leaves a few connections, and the rest are closed", async () => {
    bench = await Bench.start([]);
    const polls: (() => void)[] = [];
    const origin = await bench.origin((_request, response) => void polls.push(() => response.end("{}")));
    await bench.controller.update([serving("a", origin)]);
    const answers = Array.from({ length: 150 }, () => ask(bench, "a.example", { path: "/sync" }));
    await eventually("all poll", () => polls.length === 150);
    for (const poll of polls) poll();
    for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
    await eventually("what is not needed is closed", () => origin.open === 64);
  });

  it("uses connections that long polls have left", async () => {
    bench = await Bench.start([]);
    const polls: (() => void)[] = [];
    const origin = await bench.origin((request, response) => {
      if (request.url === "/sync") polls.push(() => response.end("{}"));
      else response.end("{}");
    });
    await bench.controller.update([serving("a", origin)]);
    const answers = [1, 2, 3].map(() => ask(bench, "a.example", { path: "/sync" }));
    await eventually("all poll", () => polls.length === 3);
    polls.pop()!();
    for (let i = 0; i < 20; i += 1) expect((await ask(bench, "a.example")).status).toBe(200);
    expect(origin.connections).toBe(3);
    for (const poll of polls) poll();
    await Promise.all(answers);
  });

  it("does not use the connection of a request whose client went away", async () => {
    bench = await Bench.start([]);
    let polls = 0;
    const origin = await bench.origin((request, response) => {
      if (request.url === "/sync") polls += 1;
      else response.end("{}");
    });
    await bench.controller.update([serving("a", origin)]);
    for (let i = 1; i <= 10; i += 1) {
      const gone = new AbortController();
      const poll = ask(bench, "a.example", { path: "/sync", signal: gone.signal }).catch(() => "gone");
      await eventually("it polls", () => polls === i);
      gone.abort();
      await poll;
      expect((await ask(bench, "a.example", { method: "POST", body: "{}" })).status).toBe(200);
    }
    expect(await eventually("no more is open than is used", () => origin.open <= 1)).toBe(true);
  });
});
