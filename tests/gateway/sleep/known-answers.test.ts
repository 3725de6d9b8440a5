import { describe, expect, it } from "vitest";
import type { Route } from "../../../src/model/routes.ts";
import { KnownAnswers, questionOf } from "../../../src/gateway/sleep/known-answers.ts";
import { isServed, OwnPaths } from "../../../src/gateway/sleep/served-paths.ts";

const ROUTE: Route = { tenant: "a", hosts: ["a.example"], state: "serving", epoch: 1 };
const HOUR = 3_600_000;

function question(method: string, target: string, headers: Record<string, string> = {}) {
  return questionOf(method, target, headers);
}

describe("a question to any homeserver", () => {
  it.each([
    ["/_matrix/client/versions", "versions"],
    ["/.well-known/matrix/client?x=1", "well-known"],
    ["/.well-known/matrix/server", "well-known"],
    ["/_matrix/key/v2/server", "keys"],
    ["/_matrix/federation/v1/version", "server"],
    ["/_matrix/client/v3/login", "login"],
    ["/_matrix/client/v1/auth_metadata", "auth"],
    ["/", "root"],
    ["/health", "health"],
  ])("is GET %s", (target, topic) => {
    expect(question("GET", target)?.topic).toBe(topic);
    expect(question("POST", target)).toBeUndefined();
    expect(question("GET", target, { authorization: "Bearer x" })).toBeUndefined();
  });

  it("is a preflight, where other headers are allowed below rendezvous", () => {
    const headers = { "access-control-request-method": "GET" };
    expect(question("OPTIONS", "/_matrix/client/v3/sync", headers)?.key).toBe("preflight");
    expect(question("OPTIONS", "/_synapse/client/rendezvous/x", headers)?.key).toBe("preflight rendezvous");
    expect(question("OPTIONS", "/_matrix/client/v3/sync")).toBeUndefined();
  });

  it.each(["/_matrix/client/versions?access_token=x", "/_matrix/client/v3/sync", "/constructor", "/__proto__"])(
    "is not GET %s",
    (target) => {
      expect(question("GET", target)).toBeUndefined();
    },
  );
});

describe("known answers", () => {
  const versions = question("GET", "/_matrix/client/versions")!;
  const keys = question("GET", "/_matrix/key/v2/server")!;

  it("are those of the same host, release and configuration, for a day", () => {
    const known = new KnownAnswers({ maxRememberedBytes: 1e6 });
    known.remember(ROUTE, "a.example", versions, 200, { "content-type": "application/json", date: "now" }, "{}", 0);
    const found = known.find({ ...ROUTE, state: "asleep" }, "a.example", versions, 23 * HOUR);
    expect(found).toEqual({ status: 200, head: '["content-type","application/json"]', body: "{}" });
    expect(known.find(ROUTE, "b.example", versions, 0)).toBeUndefined();
    expect(known.find({ ...ROUTE, epoch: 2 }, "a.example", versions, 0)).toBeUndefined();
    expect(known.find(ROUTE, "a.example", versions, 25 * HOUR)).toBeUndefined();
  });

  it("outlast starts of the tenant where the controller names release and configuration", () => {
    const known = new KnownAnswers({ maxRememberedBytes: 1e6 });
    known.remember({ ...ROUTE, revision: "r1" }, "a.example", versions, 200, {}, "{}", 0);
    expect(known.find({ ...ROUTE, epoch: 5, revision: "r1" }, "a.example", versions, 0)).toBeDefined();
    expect(known.find({ ...ROUTE, epoch: 5, revision: "r2" }, "a.example", versions, 0)).toBeUndefined();
    known.remember({ ...ROUTE, epoch: 6, revision: "r2" }, "a.example", keys, 200, {}, '{"valid_until_ts":9e9}', 0);
    expect(known.find({ ...ROUTE, epoch: 6, revision: "r2" }, "a.example", versions, 0)).toBeUndefined();
  });

  it("of keys are given until a quarter of their validity is left, and of what is no key never", () => {
    const known = new KnownAnswers({ maxRememberedBytes: 1e6 });
    known.remember(ROUTE, "a.example", keys, 200, {}, JSON.stringify({ valid_until_ts: 8 * HOUR }), 0);
    expect(known.find(ROUTE, "a.example", keys, 6 * HOUR - 1)).toBeDefined();
    expect(known.find(ROUTE, "a.example", keys, 6 * HOUR)).toBeUndefined();
    known.remember(ROUTE, "a.example", keys, 200, {}, "{}", 0);
    expect(known.find(ROUTE, "a.example", keys, 0)).toBeUndefined();
  });

  it("are none where the newest one cannot be given to others", () => {
    const known = new KnownAnswers({ maxRememberedBytes: 1e6 });
    const remembers = (status: number, headers: Record<string, string | string[]>) => {
      known.remember(ROUTE, "a.example", versions, 200, {}, "{}", 0);
      known.remember(ROUTE, "a.example", versions, status, headers, "{}", 0);
      return known.find(ROUTE, "a.example", versions, 0) !== undefined;
    };
    expect(remembers(200, {})).toBe(true);
    expect(remembers(500, {})).toBe(false);
    expect(remembers(200, { "set-cookie": ["a=b"] })).toBe(false);
    expect(remembers(200, { "content-encoding": "gzip" })).toBe(false);
  });

  it("keep one copy of what many homeservers say, within their bounds", () => {
    const known = new KnownAnswers({ maxRememberedBytes: 100_000 });
    const body = JSON.stringify({ versions: "x".repeat(5_000) });
    for (let i = 0; i < 1_000; i += 1)
      known.remember({ ...ROUTE, tenant: `t${i}` }, `t${i}.example`, versions, 200, {}, body, 0);
    expect(known.bytes).toBeLessThan(101_000);
    expect(known.find({ ...ROUTE, tenant: "t300" }, "t300.example", versions, 0)).toBeDefined();
    for (let i = 0; i < 1_000; i += 1) known.forget(`t${i}`);
    expect(known.bytes).toBe(0);
  });
});

describe("what homeservers serve", () => {
  it.each([
    "/",
    "//",
    "/health",
    "/_matrix/client/v3/sync?x",
    "//_matrix/client/versions",
    "/%5Fmatrix/client/versions",
    "/_matrix/federation/v1/version",
    "/_matrix/key/v2/server",
    "/_matrix/media/v3/download/a/b",
    "/_matrix/static/",
    "/_matrix/consent?u=x",
    "/_synapse/client/oidc/callback",
    "/_synapse/mas/x",
    "/.well-known/matrix/support",
  ])("may be at %s", (path) => {
    expect(isServed(path)).toBe(true);
  });

  it.each([
    "/wp-login.php",
    "/.env",
    "/.git/config",
    "/_matrix",
    "/_matrix/../.env",
    "/_matrix/identity/v2",
    "/_matrixx/client",
    "/.well-known/acme-challenge/x",
    "/favicon.ico",
    "/constructor",
    "/%2e%2e/x",
    "/_MATRIX/client",
  ])("is not at %s", (path) => {
    expect(isServed(path)).toBe(false);
  });

  it("is also where this tenant answered, unless that was an error or a preflight", () => {
    const own = new OwnPaths();
    own.saw("a", "OPTIONS", "/.env", 204);
    own.saw("a", "GET", "/.env", 404);
    own.saw("a", "GET", "/module/page", 200);
    expect([own.serves("a", "/.env"), own.serves("a", "/module/other"), own.serves("b", "/module/page")]).toEqual([
      false,
      true,
      false,
    ]);
    for (let i = 0; i < 100; i += 1) own.saw("a", "GET", `/p${i}`, 200);
    expect([own.serves("a", "/p3"), own.serves("a", "/p99")]).toEqual([true, false]);
    own.forget("a");
    expect(own.serves("a", "/module/page")).toBe(false);
  });
});
