import { afterEach, describe, expect, it } from "vitest";
import type { Route } from "../../src/model/routes.ts";
import { ask, asleep, Bench, serving, type Origin } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

const SERVER = "/.well-known/matrix/server";
const DELEGATE = "matrix.a.example:443";
const OURS = { "m.server": DELEGATE };

/** @param said what the homeserver itself says of where it is; nothing: 404, as Synapse answers by default */
function homeserver(said?: object): Promise<Origin> {
  return bench.origin((request, response) => {
    request.resume();
    response.writeHead(said ? 200 : 404, { "Content-Type": "application/json" });
    response.end(JSON.stringify(said ?? { errcode: "M_UNRECOGNIZED" }));
  });
}

const delegated = (route: Route): Route => ({ ...route, hosts: ["a.example", "matrix.a.example"], delegate: DELEGATE });

describe("/.well-known/matrix/server", () => {
  it("names the tenant's public address where its homeserver has nothing to say, at each of its hosts", async () => {
    bench = await Bench.start([]);
    await bench.controller.update([delegated(serving("a", await homeserver()))]);
    for (const host of ["a.example", "matrix.a.example"]) {
      const answer = await ask(bench, host, { path: SERVER });
      expect([answer.status, answer.json]).toEqual([200, OURS]);
      expect(answer.headers).toMatchObject({
        "content-type": "application/json",
        "access-control-allow-origin": "*",
        "cache-control": "public, max-age=3600",
      });
    }
    // Everything else that is not there stays so.
    const other = await ask(bench, "a.example", { path: "/.well-known/matrix/support" });
    expect(other.status).toBe(404);
  });

  it("leaves the homeserver its own word", async () => {
    bench = await Bench.start([]);
    const own = { "m.server": "elsewhere.example:8448" };
    await bench.controller.update([delegated(serving("a", await homeserver(own)))]);
    expect((await ask(bench, "a.example", { path: SERVER })).json).toEqual(own);
  });

  it("stays 404 for a tenant without a public address", async () => {
    bench = await Bench.start([]);
    await bench.controller.update([serving("a", await homeserver())]);
    expect((await ask(bench, "a.example", { path: SERVER })).status).toBe(404);
  });

  it("is told while the tenant does not run: it waits for its place, is suspended, or sleeps, which nobody disturbs", async () => {
    const pending: Route = delegated({ tenant: "a", hosts: [], state: "unavailable", reason: "Pending", epoch: 0 });
    bench = await Bench.start([pending]);
    expect((await ask(bench, "a.example", { path: SERVER })).json).toEqual(OURS);
    await bench.controller.update([{ ...pending, reason: "Suspended" }]);
    expect((await ask(bench, "a.example", { path: SERVER })).json).toEqual(OURS);

    await bench.controller.update([{ ...delegated(serving("a", await homeserver())), revision: "r" }]);
    await ask(bench, "a.example", { path: SERVER });
    await bench.controller.update([{ ...delegated(asleep("a")), revision: "r" }]);
    expect((await ask(bench, "a.example", { path: SERVER })).json).toEqual(OURS);
    expect(bench.controller.wakes).toEqual([]);
  });
});
