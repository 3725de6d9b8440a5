import { mkdtempSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { ensureAuthority } from "../../src/platforms/local/certificates.ts";
import { Bench, eventually } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

/** The case stubborn-connection. */
it("stops within its grace although connections to the TLS port say nothing, or break off in the middle of a handshake", async () => {
  const ca = await ensureAuthority(mkdtempSync(join(tmpdir(), "gateway-stubborn-")), ["localhost"]);
  bench = await Bench.start([]);
  await bench.gateway.stop(0);
  await bench.restart({ https: { host: "127.0.0.1", port: 0, certificates: bench.directory, ca } });
  const ports = [bench.port, Number(new URL(bench.ready.https!).port)];
  const sockets: Socket[] = [];
  let closed = 0;
  for (const port of ports)
    for (const first of ["", "\u0016\u0003\u0001"]) {
      const socket = connect(port, "127.0.0.1", () => socket.write(first, "latin1"));
      socket
        .resume()
        .on("error", () => {})
        .on("close", () => (closed += 1));
      sockets.push(socket);
    }
  await eventually("all are accepted", async () => (await bench.metric("client_connections")) >= sockets.length);
  const started = performance.now();
  await bench.gateway.stop(300);
  // Far less than the 30 s that such connections once cost.
  expect(performance.now() - started).toBeLessThan(20_000);
  await eventually("all are closed", () => closed === sockets.length);
});
