import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { request, type RequestOptions } from "node:https";
import type { AddressInfo } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";

/** What becomes of a request: an answer of the API server's kind, or none ever. Undefined: it is passed on. */
export type Fault = { status: number; headers?: Record<string, string> } | "hang" | undefined;
export interface SeenRequest {
  method: string;
  path: string;
  isWatch: boolean;
}

/** In front of the real API server: passes requests on, or answers them as it would in bad times. */
export class FaultyApi {
  readonly config = new KubeConfig();
  /** Decides about each request. */
  fault: (request: SeenRequest) => Fault = () => undefined;
  readonly seen: SeenRequest[] = [];
  readonly #real: KubeConfig;
  readonly #server: Server;
  readonly #watches = new Set<ServerResponse>();

  private constructor(real: KubeConfig) {
    this.#real = real;
    this.#server = createServer((incoming, answer) => {
      this.#handle(incoming, answer).catch(() => answer.destroy());
    });
  }

  static async open(real: KubeConfig): Promise<FaultyApi> {
    const api = new FaultyApi(real);
    await new Promise<void>((done) => api.#server.listen(0, "127.0.0.1", done));
    const { port } = api.#server.address() as AddressInfo;
    api.config.loadFromOptions({
      clusters: [{ name: "faulty", server: `http://127.0.0.1:${port}`, skipTLSVerify: true }],
      users: [{ name: "faulty" }],
      contexts: [{ name: "faulty", cluster: "faulty", user: "faulty" }],
      currentContext: "faulty",
    });
    return api;
  }

  breakWatches(): void {
    for (const answer of this.#watches) answer.destroy();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  async #handle(incoming: IncomingMessage, answer: ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? "/", this.#real.getCurrentCluster()?.server);
    const isWatch = url.searchParams.get("watch") === "true";
    const seen = { method: incoming.method ?? "", path: url.pathname, isWatch };
    this.seen.push(seen);
    const fault = this.fault(seen);
    if (fault === "hang") return;
    if (fault) {
      answer.writeHead(fault.status, { "content-type": "application/json", ...fault.headers });
      answer.end(JSON.stringify({ kind: "Status", code: fault.status, message: `made up: ${fault.status}` }));
      return;
    }
    if (isWatch) {
      this.#watches.add(answer);
      answer.on("close", () => this.#watches.delete(answer));
    }
    const options: RequestOptions = { method: seen.method, headers: { ...incoming.headers, host: url.host } };
    await this.#real.applyToHTTPSOptions(options);
    const outgoing = request(url, options, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers);
      answer.flushHeaders();
      response.pipe(answer);
      response.on("error", () => answer.destroy());
    });
    outgoing.on("error", () => answer.destroy());
    answer.on("close", () => outgoing.destroy());
    incoming.pipe(outgoing);
  }
}
