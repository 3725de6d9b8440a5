import { connect } from "node:net";
import { connect as connectTls } from "node:tls";
import { writeFile } from "node:fs/promises";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { ensureAuthority } from "../../src/platforms/local/certificates.ts";
import { Bench, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

const SIZE = 20 * 1024 * 1024;

interface Upload {
  text: string;
  /** The whole body was taken. */
  sent: boolean;
  error: string | undefined;
}

/** Sends a head and 20 MB, as a client does that reads the answer only after it has sent everything. */
function upload(port: number, head: string, secure = false): Promise<Upload> {
  return new Promise((resolve) => {
    const result: Upload = { text: "", sent: false, error: undefined };
    const socket = secure
      ? connectTls({ port, host: "127.0.0.1", servername: "a.example", rejectUnauthorized: false })
      : connect(port, "127.0.0.1");
    socket.on("error", (error) => (result.error = error.message));
    socket.on("close", () => resolve(result));
    socket.write(`${head}\r\nContent-Length: ${SIZE}\r\n\r\n`, "latin1");
    socket.write(Buffer.alloc(SIZE, "u"), () => {
      result.sent = true;
      socket.on("data", (chunk) => (result.text += String(chunk)));
      socket.on("end", () => socket.end());
    });
  });
}

const kinds = [
  ["HTTP/1.1 with Connection: close", "POST /p HTTP/1.1\r\nConnection: close"],
  ["HTTP/1.0", "POST /p HTTP/1.0"],
] as const;

describe("an answer that comes before the body's end", () => {
  it.each(kinds)("reaches a client that uploads with %s to nobody", async (_kind, head) => {
    bench = await Bench.start([]);
    const result = await upload(bench.port, `${head}\r\nHost: unknown.example`);
    expect(result).toMatchObject({ sent: true, error: undefined });
    expect(result.text).toMatch(/^HTTP\/1\.1 404 [\s\S]*M_NOT_FOUND/);
  });

  it.each(kinds)(
    "reaches a client that uploads with %s more than is allowed, or to a tenant that is away",
    async (_kind, head) => {
      bench = await Bench.start(
        [{ tenant: "b", hosts: ["b.example"], state: "unavailable", epoch: 1, reason: "Failed" }],
        {
          maxBodyBytes: SIZE,
        },
      );
      const chunked = await upload(bench.port, `${head}\r\nHost: b.example`);
      expect(chunked).toMatchObject({ sent: true, error: undefined });
      expect(chunked.text).toMatch(/^HTTP\/1\.1 503 /);
    },
  );

  it.each(kinds)("reaches a client that uploads with %s when the homeserver answers early", async (_kind, head) => {
    bench = await Bench.start([]);
    const origin = await bench.origin((_request, response) => void response.writeHead(401).end('{"errcode":"M_X"}'));
    await bench.controller.update([serving("a", origin)]);
    const result = await upload(bench.port, `${head}\r\nHost: a.example`);
    expect(result).toMatchObject({ sent: true, error: undefined });
    expect(result.text).toMatch(/^HTTP\/1\.1 401 [\s\S]*M_X/);
  });

  it.each([
    ["a target that makes no sense", "POST nonsense HTTP/1.1\r\nHost: a.example", 400],
    ["a header that is too large", `POST / HTTP/1.1\r\nHost: a.example\r\nX: ${"x".repeat(20_000)}`, 431],
    ["what is no HTTP", "POST / HTTP/9\r\nHost: a.example", 400],
    ["an expectation nobody knows", "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: miracles", 417],
  ])("reaches a client that uploads with %s", async (_what, head, status) => {
    bench = await Bench.start([]);
    const result = await upload(bench.port, head);
    expect(result).toMatchObject({ sent: true, error: undefined });
    expect(result.text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  });

  it.each(kinds)("reaches a client that uploads over TLS with %s", async (_kind, head) => {
    const { certificate, key } = await ensureAuthority(mkdtempSync(join(tmpdir(), "gateway-early-")), ["example"]);
    bench = await Bench.start([]);
    const origin = await bench.origin((_request, response) => void response.writeHead(401).end("{}"));
    await bench.gateway.stop(0);
    await writeFile(bench.file("routes.json"), JSON.stringify({ format: 1, routes: [serving("a", origin)] }));
    bench.controller.routes = [serving("a", origin)];
    await bench.restart({
      https: { host: "127.0.0.1", port: 0, certificates: bench.directory, ca: { certificate, key } },
    });
    const port = Number(new URL(bench.ready.https!).port);
    const result = await upload(port, `${head}\r\nHost: a.example`, true);
    expect(result).toMatchObject({ sent: true, error: undefined });
    expect(result.text).toMatch(/^HTTP\/1\.1 401 /);
  });
});
