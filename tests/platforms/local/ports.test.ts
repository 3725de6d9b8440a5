import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { choosePorts } from "../../../src/platforms/local/up/cluster-ports.ts";
import { freePort } from "../../../src/platforms/local/up/ports.ts";
import { checkConfig } from "../../../src/model/config-file.ts";
import { ClusterConfigSchema } from "../../../src/model/cluster-config.ts";
import { temporaryDirectory } from "./support.ts";

function config(gateway: object = {}, api: object = {}) {
  const document = { gateway: { port: 0, tlsPort: 0, ...gateway }, api: { port: 0, ...api } };
  return checkConfig(document, ClusterConfigSchema, "test");
}

async function occupied(): Promise<number> {
  const server = createServer();
  onTestFinished(() => void server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as { port: number }).port;
}

test("ports that are left open are chosen once", async () => {
  // Prevents: tenants whose URLs change at each start.
  const file = join(await temporaryDirectory(), "ports.json");
  const first = await choosePorts(config(), file);
  expect(new Set(Object.values(first)).size).toBe(4);
  expect(await choosePorts(config(), file)).toEqual(first);
});

test("names a port that is taken, with its setting and what to do", async () => {
  // Prevents: an EADDRINUSE from the depths of a child process.
  const file = join(await temporaryDirectory(), "ports.json");
  const port = await occupied();
  for (const [given, setting] of [
    [config({ port }), "gateway.port"],
    [config({ tlsPort: port }), "gateway.tlsPort"],
    [config({}, { port }), "api.port"],
  ] as const) {
    await expect(choosePorts(given, file)).rejects.toMatchObject({
      code: "Environment",
      message: expect.stringMatching(
        new RegExp(`^port ${port} of 127.0.0.1 is in use by another program: .* set ${setting} to another port`),
      ),
    });
  }
});

test("two parts cannot have one port, nor any part an address of another machine", async () => {
  // Prevents: a gateway that takes the controller's port, found out as a crash loop.
  const file = join(await temporaryDirectory(), "ports.json");
  const port = await freePort("127.0.0.1");
  await expect(choosePorts(config({ port, tlsPort: port }), file)).rejects.toThrow(
    `gateway.tlsPort: port ${port} is given to two parts`,
  );
  await expect(choosePorts(config({ host: "192.0.2.1" }), file)).rejects.toThrow(/192\.0\.2\.1/);
});

test("a chosen port is none that the system gives to connections, which could take it before it is used", async () => {
  const [first = 0, last = 0] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split(/\s+/).map(Number);
  for (let i = 0; i < 20; i += 1) {
    const port = await freePort("127.0.0.1");
    expect(port >= 10_000 && (port < first || port > last)).toBe(true);
  }
});
