import { afterEach, describe, expect, it } from "vitest";
import { SUSPENDED, type Route } from "../../src/model/routes.ts";
import { ask, Bench, parked, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench.stop());

const suspended: Route = {
  tenant: "a",
  hosts: ["a.example"],
  state: "unavailable",
  reason: SUSPENDED,
  epoch: 2,
  revision: "r",
};

describe("a suspended tenant", () => {
  it("tells clients so, in words that log nobody out", async () => {
    bench = await Bench.start([suspended]);
    for (const path of ["/_matrix/client/v3/sync", "/_matrix/client/v3/login", "/_matrix/client/v3/account/whoami"]) {
      const answer = await ask(bench, "a.example", { path, headers: { Authorization: "Bearer x" } });
      expect(answer.status).toBe(403);
      expect(answer.json).toMatchObject({
        errcode: "M_RESOURCE_LIMIT_EXCEEDED",
        limit_type: "hs_disabled",
        error: expect.stringContaining("suspended"),
      });
      expect(answer.headers["access-control-allow-origin"]).toBe("*");
    }
  });

  it("lets a browser see that answer", async () => {
    bench = await Bench.start([suspended]);
    const headers = { Origin: "https://app.example", "Access-Control-Request-Method": "PUT" };
    const path = "/_matrix/client/v3/rooms/!a:a.example/send/m.room.message/1";
    const preflight = await ask(bench, "a.example", { method: "OPTIONS", path, headers });
    expect([preflight.status, preflight.headers["access-control-allow-origin"]]).toEqual([204, "*"]);
  });

  it("answers other servers with nothing that they back off from, and sends who joins a room elsewhere", async () => {
    bench = await Bench.start([suspended]);
    const statusOf = async (method: string, path: string) => {
      const { status, json } = await ask(bench, "a.example", { method, path });
      return [status, json.errcode];
    };
    // Synapse backs off after 401, 404 (of some), 429 and 5xx.
    expect(await statusOf("PUT", "/_matrix/federation/v1/send/1")).toEqual([403, "M_RESOURCE_LIMIT_EXCEEDED"]);
    expect(await statusOf("GET", "/_matrix/federation/v1/user/devices/@a:a.example")).toEqual([
      403,
      "M_RESOURCE_LIMIT_EXCEEDED",
    ]);
    // The one error of a join after which Synapse tries another server, and does not back off.
    expect(await statusOf("GET", "/_matrix/federation/v1/make_join/!a:a.example/@b:b.example")).toEqual([
      400,
      "M_UNABLE_TO_GRANT_JOIN",
    ]);
  });

  it("still tells where it is found and which keys it has, as it did last", async () => {
    bench = await Bench.start([]);
    const keys = JSON.stringify({ valid_until_ts: Date.now() + 86_400_000, verify_keys: {} });
    let asked = 0;
    const origin = await bench.origin((request, response) => {
      asked += 1;
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(request.url === "/_matrix/key/v2/server" ? keys : JSON.stringify({ "m.server": "a.example:443" }));
    });
    await bench.controller.update([{ ...serving("a", origin), revision: "r" }]);
    const paths = ["/_matrix/key/v2/server", "/.well-known/matrix/server"];
    const before = await Promise.all(paths.map((path) => ask(bench, "a.example", { path })));
    await bench.controller.update([suspended]);
    const after = await Promise.all(paths.map((path) => ask(bench, "a.example", { path })));
    expect(after.map(({ status, text }) => [status, text])).toEqual(before.map(({ text }) => [200, text]));
    expect(asked).toBe(2);
    // Also under another name: its hosts and keys are the same.
    await bench.controller.update([{ ...suspended, tenant: "b", formerly: "a" }], ["a"]);
    const renamed = await Promise.all(paths.map((path) => ask(bench, "a.example", { path })));
    expect(renamed.map(({ status, text }) => [status, text])).toEqual(before.map(({ text }) => [200, text]));
    expect(asked).toBe(2);
  });

  it("is spoken for by a gateway that never saw it awake", async () => {
    const keys = JSON.stringify({ server_name: "a.example", valid_until_ts: 1, verify_keys: {}, note: "ü" });
    const client = JSON.stringify({ "m.homeserver": { base_url: "https://a.example/" } });
    const said = { "/_matrix/key/v2/server": keys, "/.well-known/matrix/client": client };
    const route = { ...suspended, said, contact: "mailto:it@a.example", delegate: "a.example:443" };
    bench = await Bench.start([route]);
    const answers = async () => {
      const paths = ["/_matrix/key/v2/server", "/_matrix/key/v2/server/", "/.well-known/matrix/client"];
      return Promise.all(paths.map(async (path) => (await ask(bench, "a.example", { path })).text));
    };
    expect(await answers()).toEqual([keys, keys, client]);
    const head = await ask(bench, "a.example", { path: "/.well-known/matrix/client" });
    expect(head.headers).toMatchObject({ "access-control-allow-origin": "*", "content-type": "application/json" });
    // What it did not say is not made up, but for its address.
    const { json } = await ask(bench, "a.example", { path: "/.well-known/matrix/server" });
    expect(json).toEqual({ "m.server": "a.example:443" });
    const refused = await ask(bench, "a.example", { path: "/.well-known/matrix/support" });
    expect(refused.json).toMatchObject({ limit_type: "hs_disabled", admin_contact: "mailto:it@a.example" });
  });

  it("is refused to requests that waited for it", async () => {
    bench = await Bench.start([parked("a")]);
    const waiting = ask(bench, "a.example", { path: "/_matrix/client/v3/sync" });
    await expect.poll(() => bench.metric('parked_requests{tenant="a"}')).toBe(1);
    await bench.controller.update([suspended]);
    expect((await waiting).status).toBe(403);
  });
});
