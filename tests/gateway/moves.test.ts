import { Agent, request as httpRequest, type ServerResponse } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { Bench, eventually, Origin, parked, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

/** A tenant on a shard: answers with what it was sent, holds long polls, and drains as a shard does. */
class Shard {
  readonly origin: Origin;
  readonly acted: string[];
  readonly #polls = new Set<ServerResponse>();
  #inFlight = 0;
  draining = false;
  stopped = false;
  late = 0;

  constructor(acted: string[]) {
    this.acted = acted;
    this.origin = new Origin((request, response) => {
      if (this.stopped) this.late += 1;
      this.#inFlight += 1;
      response.on("close", () => {
        this.#inFlight -= 1;
        this.#polls.delete(response);
      });
      if (request.url === "/sync") {
        // Sent before the gateway parked, and only now read: it must not wait either.
        if (this.draining) response.end("{}");
        else this.#polls.add(response);
        return;
      }
      let text = "";
      request.on("data", (chunk) => {
        text += String(chunk);
      });
      request.on("end", () => {
        this.acted.push(`${request.method} ${request.url} ${text}`);
        response.end("{}");
      });
    });
  }

  drainPolls(): void {
    this.draining = true;
    for (const poll of this.#polls) poll.end("{}");
  }

  /** Ends long polls early, waits for the rest, and stops listening. */
  async drain(): Promise<void> {
    this.drainPolls();
    // What gateways sent before they parked is in this process's sockets at the latest now, but perhaps not read yet: idle for a while is idle.
    let idle = 0;
    await eventually("the shard is idle", () => {
      idle = this.#inFlight === 0 ? idle + 1 : 0;
      return idle > 10;
    });
    this.stopped = true;
    await this.origin.close();
  }
}

describe("moves under load", () => {
  it("no request fails, is lost or is acted upon twice in 25 moves", async () => {
    bench = await Bench.start([]);
    const acted: string[] = [];
    let shard = new Shard(acted);
    await shard.origin.listen();
    await bench.controller.update([serving("a", shard.origin)]);
    const agent = new Agent({ keepAlive: true, maxSockets: 100 });
    const sent: string[] = [];
    const failures: string[] = [];
    const ending = new AbortController();
    const once = (method: string, path: string, body: string): Promise<void> =>
      new Promise((resolve) => {
        const request = httpRequest(
          { host: "127.0.0.1", port: bench.port, method, path, agent, headers: { host: "a.example" } },
          (response) => {
            if (response.statusCode !== 200) failures.push(`${method} ${path}: ${response.statusCode}`);
            response.resume().on("close", resolve);
          },
        );
        request.on("error", (error) => {
          failures.push(`${method} ${path}: ${error.message}`);
          resolve();
        });
        request.end(body);
      });
    const sender = async (method: string, name: string): Promise<void> => {
      for (let i = 0; !ending.signal.aborted; i += 1) {
        const [path, body] = [`/${name}/${i}`, method === "GET" ? "" : `body ${i}`];
        sent.push(`${method} ${path} ${body}`);
        await once(method, path, body);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    const poller = async (): Promise<void> => {
      while (!ending.signal.aborted) await once("GET", "/sync", "");
    };
    const clients = [
      sender("PUT", "p1"),
      sender("PUT", "p2"),
      sender("POST", "q1"),
      sender("GET", "g1"),
      ...Array.from({ length: 20 }, poller),
    ];
    for (let move = 0; move < 25; move += 1) {
      await eventually("requests went through", () => acted.length > move * 8);
      await bench.controller.update([parked("a", move, shard.origin)]);
      const old = shard;
      await old.drain();
      await bench.controller.update([parked("a", move)]);
      shard = new Shard(acted);
      await shard.origin.listen();
      await bench.controller.update([serving("a", shard.origin, move)]);
      expect(old.late).toBe(0);
    }
    ending.abort();
    await shard.drain();
    // Clients that poll again meanwhile find nobody and wait; one more shard answers them.
    shard = new Shard(acted);
    await shard.origin.listen();
    await bench.controller.update([serving("a", shard.origin)]);
    shard.drainPolls();
    await Promise.all(clients);
    await shard.drain();
    agent.destroy();
    expect(failures).toEqual([]);
    expect(acted.toSorted()).toEqual(sent.toSorted());
  }, 60_000);
});
