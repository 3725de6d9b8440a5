/**
 * The smallest proxy that can be made of the gateway's parts: node:http in, undici out, headers passed on, and nothing else: no routes, limits, parking, retries or
 * metrics. Its performance is the upper bound of the gateway's. `node gateway-bare.ts ORIGIN_PORT`; prints its own port.
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Client, type Dispatcher } from "undici";
import { requestHeaders, responseHeaders } from "../src/gateway/headers.ts";

const origin = `http://127.0.0.1:${process.argv[2]}`;
const idle: Client[] = [];

class Handler implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse;
  readonly #client: Client;
  readonly #chunks: Buffer[] = [];

  constructor(response: ServerResponse, client: Client) {
    this.#response = response;
    this.#client = client;
  }

  /** undici asks for it. */
  onRequestStart(): void {}

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Parameters<typeof responseHeaders>[0],
    text?: string,
  ): void {
    this.#response.writeHead(status, text ?? "", responseHeaders(headers));
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk);
  }

  onResponseEnd(): void {
    idle.push(this.#client);
    this.#response.end(Buffer.concat(this.#chunks).toString("latin1"), "latin1");
  }

  onResponseError(): void {
    this.#response.destroy();
  }
}

const server = createServer({ noDelay: true, keepAliveTimeout: 75_000 }, (request, response) => {
  const headers = requestHeaders(request, { address: "127.0.0.1", protocol: "http" }, { tenant: "tenant" });
  const send = (body: Buffer | null): void => {
    const client = idle.pop() ?? new Client(origin);
    const { method = "GET", url = "/" } = request;
    client.dispatch({ method, path: url, headers, body }, new Handler(response, client));
  };
  if (request.headers["content-length"] === undefined) return send(null);
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => void chunks.push(chunk));
  request.on("end", () => send(Buffer.concat(chunks)));
});
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
