import { afterEach, describe, expect, it } from "vitest";
import { isShortOfPatience } from "../../src/gateway/patience.ts";
import { ask, asleep, Bench, eventually, parked, serving } from "./harness.ts";

let bench: Bench;
afterEach(() => bench?.stop());

describe("who is short of patience", () => {
  it.each([
    "/_matrix/federation/v1/query/profile?user_id=@a:b",
    "/_matrix/federation/v1/query/directory?room_alias=x",
    "/_matrix/federation/v1/user/keys/query",
    "/_matrix/federation/v1/user/keys/claim",
    "/_matrix/federation/v1/make_join/!r:b/@a:b",
    "/_matrix/federation/v1/get_missing_events/!r:b",
    "/_matrix/federation/v1/media/download/x",
    "/_matrix/key/v2/server",
    "/_matrix/key/v2/query",
  ])("is the sender of %s", (target) => {
    expect(isShortOfPatience(target)).toBe(true);
  });

  it.each([
    "/_matrix/federation/v1/send/123",
    "/_matrix/federation/v2/send_join/!r:b/$e",
    "/_matrix/federation/v2/invite/!r:b/$e",
    "/_matrix/federation/v1/backfill/!r:b",
    "/_matrix/client/v3/sync",
  ])("is not the sender of %s", (target) => {
    expect(isShortOfPatience(target)).toBe(false);
  });
});

describe("a request of a server that is short of patience", () => {
  const path = "/_matrix/federation/v1/query/profile?user_id=@a:a.example";

  it.each([
    ["moves", parked("a")],
    ["sleeps", asleep("a")],
  ])("is refused before it gives up, with what makes no server back off, while the tenant %s", async (_what, route) => {
    bench = await Bench.start([route], {}, { senderMs: 300 });
    const profile = await ask(bench, "a.example", { path });
    // Synapse backs off after 5xx, 429, 401 and time-outs.
    expect([profile.status, profile.headers["retry-after"]]).toEqual([408, "2"]);
    const transaction = ask(bench, "a.example", { method: "PUT", path: "/_matrix/federation/v1/send/1", body: "{}" });
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    await new Promise((resolve) => setTimeout(resolve, 400));
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin, 2)]);
    expect((await transaction).status).toBe(200);
    expect(origin.seen.map(({ url }) => url)).toEqual(["/_matrix/federation/v1/send/1"]);
  });

  it("is refused in the same way where there is no room to wait, and counts as failed", async () => {
    const parking = { maxRequests: 1, maxBytes: 8 * 1024 * 1024, maxSeconds: 20 };
    bench = await Bench.start([], { parking });
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin)]);
    await bench.controller.update([parked("a")]);
    const first = ask(bench, "a.example", { path: "/_matrix/client/v3/account/whoami" });
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    expect((await ask(bench, "a.example", { path })).status).toBe(408);
    expect((await ask(bench, "a.example", { path: "/_matrix/client/v3/sync" })).status).toBe(503);
    const { parks } = await bench.controller.update([serving("a", origin, 2)]);
    expect((await first).status).toBe(200);
    expect(parks.a?.failed).toBe(2);
  });

  it("is refused in time also where its turn does not come", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 1 }, { senderMs: 300 });
    const origin = await bench.origin(() => {});
    await bench.controller.update([serving("a", origin)]);
    const gone = new AbortController();
    const slow = { path: "/_matrix/client/v3/slow", signal: gone.signal };
    ask(bench, "a.example", slow).catch(() => {});
    await eventually("it is there", () => origin.open > 0);
    expect((await ask(bench, "a.example", { path })).status).toBe(408);
    gone.abort();
  });

  it("that only reads is sent again when its homeserver is gone before the answer, whatever its method", async () => {
    bench = await Bench.start([]);
    const frozen = await bench.origin(() => {});
    await bench.controller.update([serving("a", frozen)]);
    const query = ask(bench, "a.example", {
      method: "POST",
      path: "/_matrix/federation/v1/user/keys/query",
      body: "{}",
    });
    await eventually("it is there", () => frozen.open > 0);
    await bench.controller.update([parked("a")]);
    await eventually("it waits", async () => (await bench.parkedNow("a")) === 1);
    const origin = await bench.origin();
    await bench.controller.update([serving("a", origin, 2)]);
    expect((await query).status).toBe(200);
  });
});
