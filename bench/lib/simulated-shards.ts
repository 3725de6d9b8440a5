import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { json } from "node:stream/consumers";
import type { Assignment, ShardControl } from "../../src/ports/shard-control.ts";
import { ShardRefusal } from "../../src/ports/shard-control.ts";
import { CONTROL_PORT } from "../../src/platforms/kubernetes/launcher/manifests.ts";
import { fakeClient, FakeShard, FakeWorld } from "../../tests/support/fake-world.ts";
import { onEnd } from "./cleanup.ts";
import { RELEASE, type SimulatedFleet } from "./simulated-fleet.ts";

/** Each shard has an address of the loopback interface, as the port is the same for all. @param net of those that run at the same time */
export function loopbackIp(shard: number, net = 57): string {
  return `127.${net}.${Math.floor(shard / 250)}.${(shard % 250) + 1}`;
}

/** Shards that answer as real ones do, in this process. */
export class SimulatedShards {
  /** How often each has said what it has since `forget`. */
  readonly #asked = new Map<string, number>();
  readonly #world = new FakeWorld();
  readonly #fleet: SimulatedFleet;
  readonly #servers: Server[] = [];

  private constructor(fleet: SimulatedFleet) {
    this.#fleet = fleet;
    onEnd(async () => {
      for (const server of this.#servers) server.closeAllConnections();
      await Promise.all(this.#servers.map((server) => new Promise((done) => server.close(done))));
      await this.#world.store.close();
    });
  }

  static async start(fleet: SimulatedFleet): Promise<SimulatedShards> {
    const shards = new SimulatedShards(fleet);
    for (let number = 0; number < fleet.shards; number++) await shards.#listen(number);
    return shards;
  }

  forget(): void {
    this.#asked.clear();
  }

  /** How often each was asked at least. */
  get timesAsked(): number {
    return this.#asked.size < this.#fleet.shards ? 0 : Math.min(...this.#asked.values());
  }

  async #listen(number: number): Promise<void> {
    const name = this.#fleet.shardNameOf(number);
    const shard = new FakeShard(name, RELEASE);
    for (const tenant of this.#fleet.tenantsOn(number)) {
      const epoch = this.#fleet.epoch;
      this.#world.fences.set(this.#fleet.nameOf(tenant), { epoch, shard: name });
      shard.tenants.set(this.#fleet.nameOf(tenant), {
        name: this.#fleet.nameOf(tenant),
        serverName: this.#fleet.serverNameOf(tenant),
        phase: "running",
        epoch,
        address: this.#fleet.addressOf(tenant),
        error: null,
        meaning: this.#fleet.meaningOf(tenant),
      });
    }
    this.#world.shards.set(name, shard);
    const control = fakeClient(this.#world, name);
    const server = createServer({ keepAliveTimeout: 120_000 }, (request, response) => {
      this.#answer(name, control, request, response).catch((error: unknown) => {
        const [status, code] = error instanceof ShardRefusal ? [error.status, error.code] : [500, "Simulated"];
        say(response, status, { error: { code, message: (error as Error).message } });
      });
    });
    this.#servers.push(server);
    await new Promise<void>((done, fail) => {
      server.once("error", fail).listen(CONTROL_PORT, this.#fleet.options.podIp(number), done);
    });
  }

  async #answer(shard: string, control: ShardControl, request: IncomingMessage, response: ServerResponse) {
    const url = new URL(request.url ?? "/", "http://shard");
    const [, tenant = "", call = ""] = /^\/v1\/tenants\/([^/]+)(?:\/(.+))?$/.exec(url.pathname) ?? [];
    const what = `${request.method} ${tenant === "" ? url.pathname : `tenant ${call}`.trim()}`;
    switch (what) {
      case "GET /v1/shard":
        this.#asked.set(shard, (this.#asked.get(shard) ?? 0) + 1);
        return say(response, 200, await control.state());
      case "GET /v1/load":
        return say(response, 200, await control.load());
      case "GET tenant idle":
        return say(response, 200, await control.idle(tenant));
      case "POST tenant check":
        return say(response, 200, { ok: true, ...(await control.checkTenant(tenant, await assignmentIn(request))) });
      case "POST tenant greet":
        return say(response, 200, { servers: await control.greet(tenant, 0) });
      case "DELETE tenant": {
        const release = url.searchParams.get("release") === "true";
        return say(response, 200, await control.stopTenant(tenant, 0, { release }));
      }
      case "PUT tenant": {
        const assignment = await assignmentIn(request);
        const state = await control.startTenant(tenant, assignment);
        // On the port that is asked for, as nearly always.
        state.address = this.#fleet.addressOf(Number(tenant.slice(2)));
        return say(response, 200, state);
      }
      default:
        return say(response, 404, { error: { code: "NotFound", message: `the simulation has no ${what}` } });
    }
  }
}

async function assignmentIn(request: IncomingMessage): Promise<Assignment> {
  return (await json(request)) as Assignment;
}

function say(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body);
  response
    .writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) })
    .end(text);
}
