import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SharedBook } from "../../src/controller/certificates/shared.ts";
import { parseGatewayConfig } from "../../src/gateway/config.ts";
import { Authority } from "../support/authority.ts";
import { ask, Bench, eventually, serving } from "./harness.ts";

let bench: Bench;
let authority: Authority;
/** The controller's part of it. */
let book: SharedBook;

beforeEach(async () => {
  authority = await Authority.make();
  book = new SharedBook();
});
afterEach(async () => {
  book.close();
  await bench?.stop();
});

async function start(): Promise<void> {
  bench = await Bench.start([]);
  bench.controller.certificates = (known) => {
    const [stream, version] = [known.get("stream"), known.get("version")];
    return book.since(stream === null ? {} : { stream, version: Number(version) }, 300);
  };
  await again();
  await bench.controller.update([serving("a", await bench.origin())]);
}

/** Another gateway with the same files, once the one before has written down what it knows. */
async function again(): Promise<void> {
  await bench.gateway.stop(0);
  await bench.restart(settings());
}

function settings() {
  const https = { host: "127.0.0.1", port: 0, certificates: bench.directory, ca: null };
  return { https, certificatesFile: bench.file("shared.json") };
}

async function shown(servername: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({
      host: "127.0.0.1",
      port: Number(new URL(bench.ready.https!).port),
      servername,
      rejectUnauthorized: false,
    });
    socket.once("error", () => resolve(undefined));
    socket.once("secureConnect", () => {
      resolve(socket.getPeerCertificate().subjectaltname);
      socket.destroy();
    });
  });
}

describe("certificates that the controller gets", () => {
  it("are shown for routed hosts alone, renewed ones at once, and the operator's own files go before them", async () => {
    await start();
    expect(await shown("a.example")).toBeUndefined();
    book.replace(
      new Map([
        ["a.example", await authority.issue(["a.example"])],
        ["b.example", await authority.issue(["b.example"])],
      ]),
    );
    await eventually("the certificate is shown", async () => (await shown("a.example")) === "DNS:a.example");
    expect(await shown("b.example")).toBeUndefined();
    book.replace(new Map([["*.example", await authority.issue(["*.example"])]]));
    await eventually("the wildcard is shown", async () => (await shown("a.example")) === "DNS:*.example");
    const own = await authority.issue(["a.example", "own.example"]);
    await writeFile(join(bench.directory, "a.example.crt"), own.certificate);
    await writeFile(join(bench.directory, "a.example.key"), own.key);
    await bench.gateway.reload(parseGatewayConfig({ ...bench.config(), ...settings() }, "test"));
    expect(await shown("a.example")).toBe("DNS:a.example, DNS:own.example");
  });

  it("stay in use without a controller, also over a restart; their file is its owner's alone", async () => {
    await start();
    book.replace(new Map([["a.example", await authority.issue(["a.example"])]]));
    book.thumbprint = "print";
    await eventually("the certificate is shown", async () => (await shown("a.example")) === "DNS:a.example");
    await eventually("they are written down", async () =>
      (await readFile(bench.file("shared.json"), "utf8")).includes("print"),
    );
    expect((await stat(bench.file("shared.json"))).mode & 0o777).toBe(0o600);
    bench.controller.certificates = undefined;
    await again();
    expect(await shown("a.example")).toBe("DNS:a.example");
  });
});

describe("an authority's question whether a host is ours", () => {
  it("is answered for routed hosts, as soon as there is an account, whatever state the tenant is in", async () => {
    await start();
    const path = "/.well-known/acme-challenge/abc_DEF-1";
    expect((await ask(bench, "a.example", { path })).text).not.toContain("print");
    book.thumbprint = "print";
    await eventually(
      "it is answered",
      async () => (await ask(bench, "a.example", { path })).text === "abc_DEF-1.print",
    );
    expect((await ask(bench, "unknown.example", { path })).status).toBe(404);
    for (const other of [
      "/.well-known/acme-challenge/",
      "/.well-known/acme-challenge/a/b",
      "/.well-known/acme-challenge/<x>",
    ])
      expect((await ask(bench, "a.example", { path: other })).text).not.toContain("print");
  });
});
