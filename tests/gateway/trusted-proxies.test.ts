import { afterEach, describe, expect, it } from "vitest";
import type { IncomingMessage } from "node:http";
import { proxyProblem, TrustedProxies } from "../../src/gateway/trusted-proxies.ts";
import { ask, Bench, eventually, serving } from "./harness.ts";

const from = (peer: string, headers: Record<string, string> = {}) =>
  ({ socket: { remoteAddress: peer }, headers }) as unknown as IncomingMessage;

describe("trusted proxies", () => {
  const proxies = new TrustedProxies(["10.0.0.0/8", "fd00::/8", "192.0.2.7"]);

  it("believes nobody but the trusted proxies", () => {
    const claim = { "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https" };
    expect(proxies.clientOf(from("198.51.100.1", claim), "http")).toEqual({
      address: "198.51.100.1",
      protocol: "http",
    });
    expect(new TrustedProxies([]).clientOf(from("10.0.0.1", claim), "http").address).toBe("10.0.0.1");
  });

  it("its last foreign address is the client", () => {
    const chain = { "x-forwarded-for": "127.0.0.1, 203.0.113.9, 10.1.1.1", "x-forwarded-proto": "https" };
    expect(proxies.clientOf(from("::ffff:10.2.3.4", chain), "http")).toEqual({
      address: "203.0.113.9",
      protocol: "https",
    });
    expect(proxies.clientOf(from("192.0.2.7", { "x-forwarded-for": "2001:db8::1" }), "http").address).toBe(
      "2001:db8::1",
    );
  });

  it("nonsense in a header does not reach Synapse", () => {
    expect(proxies.clientOf(from("10.0.0.1", { "x-forwarded-for": "me, ,unknown" }), "https").address).toBe("10.0.0.1");
    expect(proxies.clientOf(from("10.0.0.1", { "x-forwarded-proto": "gopher" }), "https").protocol).toBe("https");
    expect(proxies.clientOf(from("10.0.0.1"), "http")).toEqual({ address: "10.0.0.1", protocol: "http" });
  });

  it("refuses trusted proxies that are no addresses", () => {
    for (const good of ["10.0.0.0/8", "::1", "fd00::/8", "192.0.2.7"]) expect(proxyProblem(good)).toBeUndefined();
    for (const bad of ["10.0.0.0/33", "ingress", "10.0.0.0/8/8", "10.0.0", "::/129", ""])
      expect(proxyProblem(bad)).toBeDefined();
  });
});

describe("readiness", () => {
  let bench: Bench;
  afterEach(() => bench.stop());

  it("is ready only with routes and until it stops, and answers what still comes", async () => {
    bench = await Bench.start([], { shutdown: { delaySeconds: 600, graceSeconds: 1 } });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    const ready = async () => (await fetch(`${bench.ready.metrics}/readyz`)).status;
    await eventually("it is ready", async () => (await ready()) === 200);
    void bench.gateway.retire();
    expect(await ready()).toBe(503);
    await eventually("the route is known", async () => (await ask(bench, "a.example")).status === 200);
    await bench.gateway.stop(0);
    await expect(ready()).rejects.toThrow(/fetch failed/);
  });
});
