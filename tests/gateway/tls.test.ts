import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { request as httpsRequest } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type DetailedPeerCertificate, type TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Bench, serving } from "./harness.ts";

const run = promisify(execFile);
const HTTPS = { host: "127.0.0.1", port: 0 };
let files: string;
let bench: Bench;

/** Made by openssl, as an operator would: the gateway must not only understand its own. */
beforeAll(async () => {
  files = await mkdtemp(join(tmpdir(), "gateway-tls-"));
  const ca = (name: string, key: string[]) =>
    run("openssl", [
      "req",
      "-x509",
      "-nodes",
      ...key,
      "-keyout",
      join(files, `${name}.key`),
      "-out",
      join(files, `${name}.crt`),
      "-days",
      "30",
      "-subj",
      `/CN=${name}`,
      "-addext",
      "basicConstraints=critical,CA:TRUE",
    ]);
  await ca("ec", ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
  await ca("rsa", ["-newkey", "rsa:2048"]);
  await ca("own.example", ["-newkey", "rsa:2048", "-addext", "subjectAltName=DNS:own.example"]);
});
afterAll(() => rm(files, { recursive: true }));
afterEach(() => bench?.stop());

const ca = (name: string) => ({ certificate: join(files, `${name}.crt`), key: join(files, `${name}.key`) });

function port(): number {
  return Number(new URL(bench.ready.https!).port);
}

/** The certificate shown for a name, checked against `trusted`. @throws Error when the handshake fails */
async function certificateFor(servername: string, trusted: string): Promise<DetailedPeerCertificate> {
  const { readFile } = await import("node:fs/promises");
  const authority = await readFile(join(files, `${trusted}.crt`));
  return new Promise((resolve, reject) => {
    const socket: TLSSocket = connect({ host: "127.0.0.1", port: port(), servername, ca: authority });
    socket.on("error", reject);
    socket.on("secureConnect", () => {
      resolve(socket.getPeerCertificate(true));
      socket.destroy();
    });
  });
}

describe("TLS", () => {
  it.each(["ec", "rsa"])("the local authority (%s) vouches for routed hosts", async (kind) => {
    bench = await Bench.start([], { https: { ...HTTPS, certificates: files, ca: ca(kind) } });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin), serving("b", origin)]);
    const a = await certificateFor("a.example", kind);
    expect(a.subjectaltname).toBe("DNS:a.example");
    expect((await certificateFor("b.example", kind)).subjectaltname).toBe("DNS:b.example");
    expect((await certificateFor("a.example", kind)).serialNumber).toBe(a.serialNumber);
    const { readFile } = await import("node:fs/promises");
    const authority = await readFile(join(files, `${kind}.crt`));
    const status = await new Promise((resolve, reject) => {
      const request = httpsRequest(
        {
          host: "127.0.0.1",
          port: port(),
          servername: "a.example",
          headers: { host: "a.example:8448" },
          ca: authority,
          agent: false,
        },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      request.on("error", reject).end();
    });
    expect(status).toBe(200);
    expect(origin.seen[0]!.headers["x-forwarded-proto"]).toBe("https");
    expect(origin.seen[0]!.headers.host).toBe("a.example:8448");
  });

  it("answers on a connection for one tenant's name only requests of that tenant, unless it is a proxy's", async () => {
    const https = { ...HTTPS, certificates: files, ca: ca("ec") };
    bench = await Bench.start([], { https });
    const [origin, other] = [await bench.origin(), await bench.origin()];
    const routes = [{ ...serving("a", origin), hosts: ["a.example", "chat.a.example"] }, serving("b", other)];
    await bench.controller.update(routes);
    const asked = (servername: string | undefined, host: string) =>
      new Promise<[number | undefined, string]>((resolve, reject) => {
        const options = { host: "127.0.0.1", port: port(), headers: { host }, rejectUnauthorized: false, agent: false };
        httpsRequest({ ...options, ...(servername === undefined ? {} : { servername }) }, (response) => {
          let text = "";
          response.on("data", (chunk) => (text += String(chunk)));
          response.on("end", () => resolve([response.statusCode, text]));
        })
          .on("error", reject)
          .end();
      });
    const [status, text] = await asked("a.example", "b.example");
    expect([status, (JSON.parse(text) as { errcode: string }).errcode]).toEqual([421, "M_UNKNOWN"]);
    expect(other.seen).toEqual([]);
    // Names of one tenant, in any case and with a port, are as good as one.
    expect((await asked("a.example", "CHAT.a.example:8448"))[0]).toBe(200);
    expect((await asked("chat.a.example", "a.example"))[0]).toBe(200);
    expect((await asked("b.example", "a.example"))[0]).toBe(421);
    await bench.restart({ https, trustedProxies: ["127.0.0.1"] });
    await bench.controller.update(routes);
    expect((await asked("a.example", "b.example"))[0]).toBe(200);
  });

  it("ties a connection of an administrator to its tenant in the same way", async () => {
    const https = { ...HTTPS, certificates: files, ca: ca("ec") };
    const adminAccess = { ...HTTPS, tls: true, allowedNetworks: [], origins: [] };
    bench = await Bench.start([], { https, adminAccess });
    const [origin, other] = [await bench.origin(), await bench.origin()];
    const open = { adminAccess: { allowedNetworks: [] } };
    await bench.controller.update([
      { ...serving("a", origin), ...open },
      { ...serving("b", other), ...open },
    ]);
    const entrance = new URL(bench.ready.admin!);
    expect(entrance.protocol).toBe("https:");
    const statusOf = (servername: string, host: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        const at = { host: "127.0.0.1", port: Number(entrance.port), path: "/_synapse/admin/v2/users" };
        httpsRequest({ ...at, headers: { host }, servername, rejectUnauthorized: false, agent: false }, (response) => {
          response.resume().on("end", () => resolve(response.statusCode));
        })
          .on("error", reject)
          .end();
      });
    expect(await statusOf("a.example", "a.example:8449")).toBe(200);
    expect(await statusOf("a.example", "b.example:8449")).toBe(421);
    expect([origin.seen.length, other.seen.length]).toEqual([1, 0]);
  });

  it("makes no certificates for unknown hosts", async () => {
    bench = await Bench.start([], { https: { ...HTTPS, certificates: files, ca: ca("ec") } });
    await expect(certificateFor("nobody.example", "ec")).rejects.toThrow(/handshake|alert|disconnected/);
    await expect(certificateFor("..%2f.example", "ec")).rejects.toThrow(/handshake|alert|disconnected/);
  });

  it("an operator's own certificate wins", async () => {
    bench = await Bench.start([], { https: { ...HTTPS, certificates: files, ca: ca("ec") } });
    const origin = await bench.origin();
    await bench.controller.update([{ ...serving("a", origin), hosts: ["own.example"] }]);
    expect((await certificateFor("own.example", "own.example")).issuer.CN).toBe("own.example");
  });

  it("starts without an authority, and refuses hosts without files", async () => {
    bench = await Bench.start([], { https: { ...HTTPS, certificates: files, ca: null } });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin), { ...serving("b", origin), hosts: ["own.example"] }]);
    await expect(certificateFor("a.example", "ec")).rejects.toThrow(/handshake|alert|disconnected/);
    expect((await certificateFor("own.example", "own.example")).issuer.CN).toBe("own.example");
  });

  it("refuses a key that is not the authority's at the start", async () => {
    await writeFile(join(files, "junk.key"), "junk");
    bench = await Bench.start([]);
    for (const key of ["rsa.key", "junk.key", "missing.key"]) {
      const https = {
        ...HTTPS,
        certificates: files,
        ca: { certificate: join(files, "ec.crt"), key: join(files, key) },
      };
      await expect(bench.restart({ https })).rejects.toThrow(/https\.ca/);
    }
  });
});
