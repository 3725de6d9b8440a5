/** A gateway with a feed of routes, as a controller gives it: for what changes in routes while it runs. */
import { createServer } from "node:http";
import { join } from "node:path";
import { RouteFeed } from "../../src/controller/routes/route-feed.ts";
import type { Route, RouteAck } from "../../src/model/routes.ts";
import { type Proxy, startGateway } from "../gateway-proxies.ts";
import { onEnd } from "./cleanup.ts";

export class RoutedGateway {
  readonly proxy: Proxy;
  readonly #feed: RouteFeed;

  private constructor(proxy: Proxy, feed: RouteFeed) {
    this.proxy = proxy;
    this.#feed = feed;
  }

  static async start(directory: string, more: { maxInFlightPerTenant?: number } = {}): Promise<RoutedGateway> {
    const feed = new RouteFeed();
    const server = createServer((request, response) => {
      const url = new URL(request.url ?? "/", "http://feed");
      if (request.method === "POST") {
        let text = "";
        request
          .on("data", (chunk) => (text += String(chunk)))
          .on("end", () => {
            // What it has answered is told at another path, and nobody asks for it here.
            if (url.pathname === "/v1/routes/acks") feed.acknowledge(JSON.parse(text) as RouteAck);
            response.end("{}");
          });
        return;
      }
      const lines = feed.subscribe(url.searchParams.get("gateway") ?? "");
      response.once("close", () => lines.close());
      void (async () => {
        for await (const line of lines) response.write(`${JSON.stringify(line)}\n`);
        response.end();
      })();
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    onEnd(async () => {
      feed.close();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    });
    const { port } = server.address() as { port: number };
    const controller = `http://127.0.0.1:${port}`;
    return new RoutedGateway(await startGateway(join(directory, "gateway"), {}, { ...more, controller }), feed);
  }

  /** @returns when the gateway acts on it */
  async tell(route: Route): Promise<void> {
    if (!(await this.#feed.settled(this.#feed.publish(route), 10_000))) throw new Error("the gateway does not listen");
  }
}
