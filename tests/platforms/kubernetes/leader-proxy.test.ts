import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startLeaderProxy } from "../../../src/platforms/kubernetes/leader-proxy.ts";
import { until } from "../../support/patience.ts";

describe("what every replica of the controller shows", () => {
  const asked: ServerResponse[] = [];
  let api: Server;
  let proxy: Awaited<ReturnType<typeof startLeaderProxy>>;
  let upstream: { url: string; own: boolean } | undefined;

  beforeEach(async () => {
    asked.length = 0;
    api = createServer((_request, response) => void asked.push(response));
    await new Promise<void>((done) => api.listen(0, "127.0.0.1", done));
    upstream = { url: `http://127.0.0.1:${(api.address() as AddressInfo).port}`, own: false };
    proxy = await startLeaderProxy({
      host: "127.0.0.1",
      port: 0,
      metrics: new Registry(),
      logger: pino({ level: "silent" }),
      upstream: () => upstream,
    });
  });
  afterEach(async () => {
    await proxy.close();
    api.closeAllConnections();
    await new Promise((done) => api.close(done));
  });
  const ask = (path: string) => fetch(`http://127.0.0.1:${proxy.port}${path}`);

  it("passes a request on that is under way when it is closed, with its answer", async () => {
    const answer = ask("/v1/status");
    await until("the leader is asked", () => asked.length === 1);
    const closed = proxy.close();
    const isRefused = async () => (await ask("/healthz").catch(() => undefined))?.status !== 200;
    await until("nobody else is let in", isRefused);
    asked[0]!.end("the status");
    const { status, text } = await answer.then(async (response) => ({
      status: response.status,
      text: await response.text(),
    }));
    expect({ status, text }).toEqual({ status: 200, text: "the status" });
    await closed;
  });

  it("is not kept from closing by a stream that does not end", async () => {
    const answer = ask("/v1/routes");
    await until("the leader is asked", () => asked.length === 1);
    asked[0]!.write("a line\n");
    const { body } = await answer;
    await proxy.close();
    await expect(body!.pipeTo(new WritableStream())).rejects.toThrow(/terminated/);
  });

  it("says that nobody leads, and that it is worth trying again", async () => {
    upstream = undefined;
    const answer = await ask("/v1/status");
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "1"]);
  });
});
