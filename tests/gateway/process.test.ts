import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import type { GatewayReady } from "../../src/gateway/gateway.ts";
import { ask, Bench, eventually, serving, Wire } from "./harness.ts";

let bench: Bench;
let child: ChildProcess | undefined;
afterEach(async () => {
  if (child && child.exitCode === null && child.signalCode === null) {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  child = undefined;
  await bench.stop();
});

async function spawnGateway(extra: Record<string, unknown> = {}): Promise<{ port: number; errors: () => string }> {
  await bench.gateway.stop(0);
  const path = bench.file("gateway.json");
  await writeFile(
    path,
    JSON.stringify({
      ...bench.config(),
      readyFile: bench.file("child-ready.json"),
      logFile: bench.file("child.log"),
      ...extra,
    }),
  );
  child = spawn(process.execPath, ["src/gateway/main.ts", "--config", path], { stdio: ["ignore", "ignore", "pipe"] });
  let text = "";
  child.stderr!.on("data", (chunk) => {
    text += String(chunk);
  });
  const ready = await eventually("the process is ready, or has ended", async () => {
    if (child!.exitCode !== null) return { http: "http://x:1" };
    return JSON.parse(
      await readFile(bench.file("child-ready.json"), "utf8").catch(() => "null"),
    ) as GatewayReady | null;
  });
  return { port: Number(new URL(ready.http).port), errors: () => text };
}

describe("the gateway's process", () => {
  it("a stop lets what is in flight end", async () => {
    bench = await Bench.start([]);
    const polls: (() => void)[] = [];
    const origin = await bench.origin((_request, response) => void polls.push(() => response.end("{}")));
    bench.controller.routes = [serving("a", origin)];
    const gateway = await spawnGateway();
    await eventually("its feed is open", () => bench.controller.gateways.length === 2);
    const answer = ask(gateway, "a.example");
    await eventually("it polls", () => polls.length > 0);
    child!.kill("SIGTERM");
    await eventually("new connections are refused", () =>
      ask(gateway, "a.example", { signal: AbortSignal.timeout(1000) }).then(
        () => false,
        (error: NodeJS.ErrnoException) => error.code === "ECONNREFUSED",
      ),
    );
    for (const finish of polls) finish();
    const { status, headers } = await answer;
    expect([status, headers.connection]).toEqual([200, "close"]);
    const [code] = child!.exitCode === null ? ((await once(child!, "exit")) as [number]) : [child!.exitCode];
    expect(code).toBe(0);
  }, 30_000);

  it("refuses a wrong configuration, and says where", async () => {
    bench = await Bench.start([]);
    const { errors } = await spawnGateway({
      parking: { maxRequests: 0, maxBytes: 2048, maxSeconds: 1 },
      colour: "blue",
    });
    if (child!.exitCode === null) await once(child!, "exit");
    expect(child!.exitCode).toBe(2);
    expect(errors()).toMatch(/parking\.maxRequests/);
    expect(errors()).toMatch(/colour: no such setting/);
    expect(errors()).not.toContain("    at ");
  }, 30_000);

  it("logs no access token at any level", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    bench.controller.routes = [serving("a", origin)];
    const gateway = await spawnGateway({ logLevel: "trace" });
    await eventually(
      "it serves",
      async () =>
        (
          await ask(gateway, "a.example", {
            path: "/p?access_token=syt_secret",
            headers: { Authorization: "Bearer syt_secret" },
          })
        ).status === 200,
    );
    const log = await eventually("the request is logged", async () => {
      const text = await readFile(bench.file("child.log"), "utf8");
      return text.includes('"path":"/p"') && text;
    });
    expect(log).not.toContain("syt_secret");
    expect(log).not.toContain("feed-token-for-tests");
  }, 30_000);
});

describe("stopping", () => {
  it("long polls end with an answer when the time is up", async () => {
    bench = await Bench.start([]);
    let polled = 0;
    const origin = await bench.origin(() => {
      polled += 1;
    });
    await bench.controller.update([serving("a", origin)]);
    const answers = [ask(bench, "a.example"), ask(bench, "a.example")];
    await eventually("they poll", () => polled === 2);
    await bench.gateway.stop(100);
    for (const answer of await Promise.all(answers)) {
      expect(answer.status).toBe(503);
      expect(answer.headers["retry-after"]).toBeDefined();
    }
  });

  it("idle connections do not keep the process from stopping", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const { Agent } = await import("node:http");
    const agent = new Agent({ keepAlive: true });
    const request = httpRequest({ host: "127.0.0.1", port: bench.port, headers: { host: "a.example" }, agent }).end();
    const [response] = await once(request, "response");
    response.resume();
    await once(response, "end");
    await expect(bench.gateway.stop(60_000)).resolves.toBeUndefined();
    agent.destroy();
  });

  const REQUEST = "GET /_matrix/client/versions HTTP/1.1\r\nHost: a.example\r\n\r\n";

  it("lets clients go with their answers before it stops, so that nothing is in use when connections are closed", async () => {
    bench = await Bench.start([], { shutdown: { delaySeconds: 600, graceSeconds: 5 } });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    expect((await ask(bench, "a.example", { headers: { connection: "keep-alive" } })).headers.connection).toBe(
      "keep-alive",
    );
    void bench.gateway.retire();
    const preflight = { method: "OPTIONS", headers: { origin: "https://app", "access-control-request-method": "GET" } };
    for (const [host, options] of [
      ["a.example", {}],
      ["nobody.example", {}],
      ["nobody.example", preflight],
    ] as const) {
      const headers = { ...("headers" in options ? options.headers : {}), connection: "keep-alive" };
      const answer = await ask(bench, host, { ...options, headers });
      expect([host, answer.headers.connection]).toEqual([host, "close"]);
    }
  });

  it("answers what had arrived on an idle connection, or on one that was not accepted yet, when it stopped", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const idle = new Wire(bench.port).send(REQUEST);
    await idle.sees("}");
    idle.text = "";
    idle.send(REQUEST);
    const waiting = new Wire(bench.port).send(REQUEST);
    // It connects in the next tick; what the machine then has, this process has not seen.
    await new Promise<void>((done) => process.nextTick(done));
    const stopped = bench.gateway.stop(30_000);
    for (const wire of [idle, waiting]) {
      await wire.isClosed();
      expect(wire.text).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*Connection: close/);
    }
    await stopped;
  });
});
