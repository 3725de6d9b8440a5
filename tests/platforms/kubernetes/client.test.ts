import { mkdtemp, rm, writeFile } from "node:fs/promises";
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from "node:http2";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { setImmediate as nextTurn } from "node:timers/promises";
import { join } from "node:path";
import { CoreV1Api, type KubeConfig } from "@kubernetes/client-node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { apiClient, loadKubeConfig } from "../../../src/platforms/kubernetes/client.ts";
import { Places } from "../../../src/platforms/kubernetes/places.ts";
import { Authority } from "../../support/authority.ts";

/** An API server that speaks HTTP/2 to those who want it. */
let server: Http2SecureServer;
let directory: string;
let config: KubeConfig;
let given: string | undefined;
/** Which connection each request came on, and its HTTP version. */
let asked: { port: number | undefined; version: string }[];
let answer: (request: Http2ServerRequest, response: Http2ServerResponse) => void;

beforeEach(async () => {
  asked = [];
  answer = (_, response) => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ kind: "Secret", metadata: { name: "s", resourceVersion: "1" } }));
  };
  directory = await mkdtemp(join(tmpdir(), "kubeconfig-"));
  const authority = await Authority.make();
  const { certificate: cert, key } = await authority.issue(["localhost"]);
  server = createSecureServer({ cert, key, allowHTTP1: true }, (request, response) => {
    asked.push({ port: request.socket.remotePort, version: request.httpVersion });
    answer(request, response);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const ca = Buffer.from(authority.pem).toString("base64");
  const file = join(directory, "config");
  await writeFile(
    file,
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "x", cluster: { server: `https://localhost:${port}`, "certificate-authority-data": ca } }],
      users: [{ name: "x", user: { token: "x" } }],
      contexts: [{ name: "x", context: { cluster: "x", user: "x" } }],
      "current-context": "x",
    }),
  );
  given = process.env["KUBECONFIG"];
  process.env["KUBECONFIG"] = file;
  config = loadKubeConfig();
});
afterEach(async () => {
  if (given === undefined) delete process.env["KUBECONFIG"];
  else process.env["KUBECONFIG"] = given;
  server.close();
  await rm(directory, { recursive: true });
});

const read = (timeoutMs = 5_000) =>
  apiClient(config, CoreV1Api, { timeoutMs }).readNamespacedSecret({ name: "s", namespace: "n" });

describe("connections to the API server", () => {
  it("are kept from one request to the next", async () => {
    await read();
    // It is free when its answer has been taken in.
    await nextTurn();
    await read();
    expect(asked.map(({ version }) => version)).toEqual(["1.1", "1.1"]);
    expect(asked[1]?.port).toBe(asked[0]?.port);
  });

  // Guards against: one connection for everything, which died silently, and on which each request waits for its own end in vain.
  it("go with a request that was given up", async () => {
    await read();
    const answers = answer;
    answer = () => {};
    await expect(read(300)).rejects.toMatchObject({ name: "TimeoutError" });
    answer = answers;
    expect((await read()).metadata?.name).toBe("s");
    expect(asked[2]?.port).not.toBe(asked[1]?.port);
  });

  it("are given up where an answer does not come to its end", async () => {
    answer = (_, response) => {
      response.setHeader("content-type", "application/json");
      response.write("{");
    };
    await expect(read(300)).rejects.toMatchObject({ name: "TimeoutError" });
  });
});

describe("turns", () => {
  it("are taken in order, and given up by who waited for too long", async () => {
    const places = new Places(1);
    await places.take(1_000);
    const late = places.take(20);
    await expect(late).rejects.toThrow("it had no turn within 0.02 s");
    const order: number[] = [];
    const next = [1, 2].map((number) => places.take(5_000).then(() => order.push(number)));
    places.give();
    await next[0];
    expect(order).toEqual([1]);
    places.give();
    await next[1];
    places.give();
    await places.take(0);
    expect(order).toEqual([1, 2]);
  });
});
