import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { RouteTable } from "../../src/gateway/route-table.ts";
import type { Route } from "../../src/model/routes.ts";
import { ask, Bench, eventually, parked, serving } from "./harness.ts";

let bench: Bench | undefined;
afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

const SECRET = "20783.aVerySecretWord";
const HEADER = "x-synapse-shards-secret";

describe("the secret of a shard", () => {
  it("goes with each request to the shard, in place of whatever a client says it is, and is never logged", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    const other = await bench.origin();
    await bench.controller.update([{ ...serving("a", origin), secret: SECRET }, serving("b", other)]);
    const headers = { "X-Synapse-Shards-Secret": "a guess" };
    for (const host of ["a.example", "b.example"]) await ask(bench, host, { method: "POST", body: "x", headers });
    expect(origin.seen.map((request) => request.headers[HEADER])).toEqual([SECRET]);
    expect(other.seen.map((request) => request.headers[HEADER])).toEqual([undefined]);
    await bench.controller.update([{ ...parked("a", 1, origin), secret: SECRET }]);
    await ask(bench, "a.example", { path: "/_matrix/key/v2/server" });
    expect(origin.seen.at(-1)!.headers[HEADER]).toBe(SECRET);
    expect(bench.logged.join("")).not.toContain(SECRET);
    expect(await bench.metrics()).not.toContain(SECRET);
  });

  it("is the newest when requests that waited are sent", async () => {
    bench = await Bench.start([parked("a")]);
    const answer = ask(bench, "a.example");
    await eventually("it waits", async () => (await bench!.parkedNow("a")) === 1);
    const origin = await bench.origin();
    await bench.controller.update([{ ...serving("a", origin), secret: "new" }]);
    await answer;
    expect(origin.seen[0]!.headers[HEADER]).toBe("new");
  });

  it("outlives a restart of the gateway, in a file that only its user can read", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    await bench.controller.update([{ ...serving("a", origin), secret: SECRET }]);
    await bench.gateway.stop(0);
    expect(readFileSync(bench.file("routes.json"), "utf8")).toContain(SECRET);
    await bench.controller.close();
    await bench.restart();
    await ask(bench, "a.example");
    expect(origin.seen[0]!.headers[HEADER]).toBe(SECRET);
  });

  it("stays with an address when a controller that has just started does not know it yet", () => {
    const table = new RouteTable();
    const route: Route = { tenant: "a", hosts: [], state: "serving", address: "h:1", epoch: 1 };
    table.replace([{ ...route, secret: SECRET }]);
    table.replace([route]);
    expect(table.tenant("a")?.secret).toBe(SECRET);
    const { address: _, ...rest } = route;
    table.update([{ ...rest, state: "parked", draining: "h:1" }], []);
    expect(table.tenant("a")?.secret).toBe(SECRET);
    table.update([{ ...route, address: "h:2" }], []);
    expect(table.tenant("a")?.secret).toBeUndefined();
  });
});
