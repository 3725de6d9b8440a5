import { afterEach, describe, expect, it } from "vitest";
import { readFile } from "node:fs/promises";
import { AdminAccess } from "../../src/gateway/admin-access.ts";
import { adminPathOf, REFUSED } from "../../src/gateway/admin-paths.ts";
import { parseGatewayConfig } from "../../src/gateway/config.ts";
import type { Route } from "../../src/model/routes.ts";
import { asleep, ask, Bench, eventually, parked, serving, type Ask, type Origin } from "./harness.ts";

const UI = "https://admin.example";
const ADMIN_ACCESS = { host: "127.0.0.1", port: 0, tls: false, allowedNetworks: [] as string[], origins: [UI] };
const USERS = "/_synapse/admin/v2/users";
/** As an administrator's browser sends it. */
const TOKEN = { Authorization: "Bearer of-an-administrator" };

let bench: Bench;

const open = (route: Route, allowedNetworks: string[] = []): Route => ({ ...route, adminAccess: { allowedNetworks } });

async function started(overrides: Parameters<typeof Bench.start>[1] = {}): Promise<Origin> {
  bench = await Bench.start([], { adminAccess: ADMIN_ACCESS, ...overrides });
  return bench.origin();
}

/** At the entrance for administrators. */
function enter(host: string, options: Ask = {}) {
  return ask({ port: Number(new URL(bench.ready.admin!).port) }, host, { path: USERS, headers: TOKEN, ...options });
}

const codeOf = (answer: { status: number; headers: Record<string, unknown> }) => [
  answer.status,
  answer.headers["x-synapse-shards-error"],
];

describe("the entrance for a tenant's administrators", () => {
  afterEach(() => bench.stop());

  it("is not there unless the configuration has it, and has no TLS without certificates", async () => {
    bench = await Bench.start([]);
    expect(bench.ready.admin).toBeNull();
    const config = { ...bench.config(), adminAccess: { ...ADMIN_ACCESS, tls: true } };
    expect(() => parseGatewayConfig(config, "test")).toThrow(/adminAccess\.tls.*https/s);
    const wrong = { ...bench.config(), adminAccess: { ...ADMIN_ACCESS, allowedNetworks: ["10.0.0.0/40"] } };
    expect(() => parseGatewayConfig(wrong, "test")).toThrow(/allowedNetworks/);
  });

  it("lets the admin API of an open tenant through as it was sent, and leaves who asks to the homeserver", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin))]);
    const path = "/_synapse/admin/v2/users/%40x%3Aa.example?from=1";
    const headers = { ...TOKEN, "Content-Type": "application/json" };
    const answer = await enter("a.example:8449", { method: "PUT", path, headers, body: '{"admin":true}' });
    expect(answer.status).toBe(200);
    expect(origin.seen).toMatchObject([
      {
        method: "PUT",
        url: path,
        body: Buffer.from('{"admin":true}'),
        headers: { authorization: TOKEN.Authorization, "x-synapse-shards-tenant": "a", "x-forwarded-for": "127.0.0.1" },
      },
    ]);
  });

  it("is closed for a tenant that nobody has opened, and says it like that to everybody", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin)), serving("b", origin)]);
    for (const path of [USERS, "/_matrix/client/versions", "/.well-known/matrix/client"])
      expect(codeOf(await enter("b.example", { path }))).toEqual([403, "AdminAccessClosed"]);
    expect(codeOf(await enter("c.example"))).toEqual([404, "UnknownHost"]);
    expect(origin.seen).toEqual([]);
  });

  it("brings what is meant for one tenant to that one alone, whatever the target or other headers say", async () => {
    const origin = await started();
    const other = await bench.origin();
    await bench.controller.update([open(serving("a", origin)), serving("b", other)]);
    const headers = { ...TOKEN, "X-Forwarded-Host": "b.example", "X-Synapse-Shards-Tenant": "b" };
    expect((await enter("a.example", { headers })).status).toBe(200);
    expect((await enter("a.example", { path: `http://b.example${USERS}` })).status).toBe(400);
    expect(other.seen).toEqual([]);
    expect(origin.seen.map(({ headers: got }) => got["x-synapse-shards-tenant"])).toEqual(["a"]);
  });

  it("leaves the entrance for everybody as it was: the admin API of an open tenant is refused there", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin))]);
    for (const path of [USERS, "/_synapse/%61dmin/v2/users"])
      expect(codeOf(await ask(bench, "a.example", { path, headers: TOKEN }))).toEqual([403, "AdminForbidden"]);
    expect(origin.seen).toEqual([]);
  });

  it("closes for the next request on a connection, and for one that waits for the tenant", async () => {
    const origin = await started();
    await bench.controller.update([open(parked("a"))]);
    const waiting = enter("a.example");
    await eventually("the request waits", async () => (await bench.parkedNow("a")) === 1);
    await bench.controller.update([serving("a", origin, 2)]);
    expect(codeOf(await waiting)).toEqual([403, "AdminAccessClosed"]);
    expect(codeOf(await enter("a.example"))).toEqual([403, "AdminAccessClosed"]);
    expect(origin.seen).toEqual([]);
  });

  it("parks requests, wakes the tenant, and bounds bodies as at the other entrance", async () => {
    const origin = await started({ maxBodyBytes: 2048 });
    await bench.controller.update([open(asleep("a"))]);
    const waiting = enter("a.example");
    await eventually("a wake is asked for", () => bench.controller.wakes.length > 0);
    await bench.controller.update([open(serving("a", origin, 3))]);
    expect((await waiting).status).toBe(200);
    const body = "x".repeat(4096);
    const path = "/_synapse/admin/v1/send_server_notice";
    expect(codeOf(await enter("a.example", { method: "POST", path, body }))).toEqual([413, "TooLarge"]);
  });

  it("gives an administrator's requests the tenant's share of requests, and no more", async () => {
    bench = await Bench.start([], {
      adminAccess: ADMIN_ACCESS,
      maxInFlightPerTenant: 1,
      parking: { maxRequests: 1, maxBytes: 65_536, maxSeconds: 20 },
    });
    const held: (() => void)[] = [];
    const origin = await bench.origin((_request, response) => void held.push(() => response.end("{}")));
    await bench.controller.update([open(serving("a", origin))]);
    const first = enter("a.example");
    await eventually("the first is at the homeserver", () => held.length === 1);
    const second = ask(bench, "a.example", { path: "/_matrix/client/v3/profile/x" });
    await eventually("the second waits", async () => (await bench.metric('share_waiting_requests{tenant="a"}')) === 1);
    expect(codeOf(await enter("a.example"))).toEqual([429, "ShareFull"]);
    held.shift()!();
    expect((await first).status).toBe(200);
    await eventually("the second is at the homeserver", () => held.length === 1);
    held.shift()!();
    expect((await second).status).toBe(200);
  });

  it("lets in who comes from an allowed network alone: the tenant's, and the cluster's as well", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin), ["10.0.0.0/8", "fd00::/8"])]);
    expect(codeOf(await enter("a.example"))).toEqual([403, "AdminAccessClosed"]);
    await bench.controller.update([open(serving("a", origin), ["10.0.0.0/8", "127.0.0.0/8"])]);
    expect((await enter("a.example")).status).toBe(200);
    await bench.stop();
    const elsewhere = await started({ adminAccess: { ...ADMIN_ACCESS, allowedNetworks: ["192.0.2.0/24"] } });
    await bench.controller.update([open(serving("a", elsewhere), ["127.0.0.0/8"])]);
    expect(codeOf(await enter("a.example"))).toEqual([403, "AdminAccessClosed"]);
  });

  it("believes a proxy of ours alone about where a client is", async () => {
    let origin = await started();
    const networks = ["198.51.100.0/24"];
    const headers = { ...TOKEN, "X-Forwarded-For": "198.51.100.7" };
    await bench.controller.update([open(serving("a", origin), networks)]);
    expect(codeOf(await enter("a.example", { headers }))).toEqual([403, "AdminAccessClosed"]);
    await bench.stop();
    origin = await started({ trustedProxies: ["127.0.0.1"] });
    await bench.controller.update([open(serving("a", origin), networks)]);
    expect((await enter("a.example", { headers })).status).toBe(200);
    expect(codeOf(await enter("a.example"))).toEqual([403, "AdminAccessClosed"]);
  });

  it("answers a browser's question whether it may ask, so that an admin UI sees the answers", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin)), serving("b", origin)]);
    const headers = { Origin: UI, "Access-Control-Request-Method": "PUT" };
    const preflight = { method: "OPTIONS", headers };
    const path = "/_synapse/admin/v2/users/x";
    expect((await enter("a.example", { ...preflight, path })).status).toBe(200);
    expect((await enter("b.example", { ...preflight, path })).status).toBe(204);
    expect((await enter("b.example")).headers["access-control-allow-origin"]).toBe("*");
  });

  it("lets pages of the admin UI call, and no other page that an administrator opens", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin)), serving("b", origin)]);
    const from = (Origin: string, host = "a.example") => enter(host, { headers: { ...TOKEN, Origin } });
    expect((await from(UI)).status).toBe(200);
    for (const other of ["https://evil.example", "http://admin.example", "https://admin.example:8449", "null", ""])
      expect(codeOf(await from(other))).toEqual([403, "AdminOriginRefused"]);
    // A page whose name led elsewhere when it came: what it reads is of its own origin, and has no Origin.
    const rebound = { ...TOKEN, "Sec-Fetch-Site": "same-origin" };
    expect(codeOf(await enter("a.example", { headers: rebound }))).toEqual([403, "AdminOriginRefused"]);
    // Where nothing is open, that is all there is to know.
    expect(codeOf(await from("https://evil.example", "b.example"))).toEqual([403, "AdminAccessClosed"]);
    // A browser hears the refusal, and not what the homeserver would have said.
    const headers = { Origin: "https://evil.example", "Access-Control-Request-Method": "GET" };
    expect((await enter("a.example", { method: "OPTIONS", headers })).status).toBe(204);
    expect(origin.seen).toHaveLength(1);
  });

  it("lets no page call where the configuration names none", async () => {
    const origin = await started({ adminAccess: { ...ADMIN_ACCESS, origins: [] } });
    await bench.controller.update([open(serving("a", origin))]);
    expect(codeOf(await enter("a.example", { headers: { ...TOKEN, Origin: UI } }))).toEqual([
      403,
      "AdminOriginRefused",
    ]);
    expect((await enter("a.example")).status).toBe(200);
  });

  it("bounds the requests of one client, whatever they are for", async () => {
    await started();
    await eventually("a request has to wait", async () => {
      const answers = await Promise.all(Array.from({ length: 50 }, () => enter("nobody.example")));
      return answers.find(({ status }) => status === 429);
    });
    const refused = await enter("nobody.example");
    expect([refused.headers["x-synapse-shards-error"], refused.headers["retry-after"]]).toEqual(["AdminTooMany", "2"]);
    // The other entrance goes on.
    expect((await ask(bench, "nobody.example")).status).toBe(404);
  });

  it("has what an admin UI signs in with, and nothing else of the homeserver", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin))]);
    const asked: [string, string][] = [
      ["GET", "/_matrix/client/versions"],
      ["GET", "/_matrix/client/v3/login"],
      ["POST", "/_matrix/client/v3/login"],
      ["GET", "/_matrix/client/v3/account/whoami"],
      ["GET", "/_matrix/client/v1/auth_metadata"],
      ["POST", "/_matrix/client/v3/logout"],
    ];
    for (const [method, path] of asked) expect((await enter("a.example", { method, path })).status).toBe(200);
    expect(origin.seen).toHaveLength(asked.length);
    for (const path of [
      // Ketesa would go on at the public address that it names, where the admin API is refused.
      "/.well-known/matrix/client",
      "/_matrix/client/v3/sync",
      "/_matrix/federation/v1/version",
      "/_matrix/key/v2/server",
      "/",
    ])
      expect(codeOf(await enter("a.example", { path }))).toEqual([404, "NotForAdministrators"]);
    for (const path of ["/_synapse/client/x", "/_synapse/mas/x", "/_synapse/metrics"])
      expect(codeOf(await enter("a.example", { path }))).toEqual([403, "AdminPathRefused"]);
    expect(origin.seen).toHaveLength(asked.length);
  });

  it("keeps the tenants' entrances after a restart without the controller", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin), ["127.0.0.0/8"])]);
    await bench.gateway.stop(0);
    await bench.controller.close();
    await bench.restart({ adminAccess: ADMIN_ACCESS });
    expect((await enter("a.example")).status).toBe(200);
  });
});

describe("walls that an administrator of a tenant meets", () => {
  const WALLS: [method: string, path: string, wall: RegExp][] = [
    ["GET", "/_synapse/admin/v1/register", /registration secret/],
    ["POST", "/_synapse/admin/v1/register", /registration secret/],
    ["POST", "/_synapse/admin/v1/background_updates/enabled", /another release/],
    ["POST", "/_synapse/admin/v1/background_updates/start_job", /gateway/],
    ["POST", "/_synapse/admin/v1/users/%40x%3Aa.example/override_ratelimit", /rate limits/],
    ["DELETE", "/_synapse/admin/v1/users/@x:a.example/override_ratelimit", /rate limits/],
  ];

  it("refuses what would break one, and says which", async () => {
    const origin = await started();
    await bench.controller.update([open(serving("a", origin))]);
    for (const [method, path, wall] of WALLS) {
      const answer = await enter("a.example", { method, path });
      expect(codeOf(answer)).toEqual([403, "AdminPathRefused"]);
      expect(answer.json.error).toMatch(wall);
    }
    expect(origin.seen).toEqual([]);
    await bench.stop();
  });

  it("refuses a path that nobody has classed, and a method that a path is not known with", () => {
    for (const [method, path] of [
      ["GET", "/_synapse/admin/v1/new_thing"],
      ["GET", "/_synapse/admin/v9/users"],
      ["POST", "/_synapse/admin/v2/users"],
      ["PATCH", "/_synapse/admin/v2/users/x"],
      ["GET", "/_synapse/admin/"],
    ] as const)
      expect(adminPathOf(method, path)).toEqual({ kind: "unknown" });
  });

  it("are those of the documentation, with their reasons", async () => {
    const page = await readFile(new URL("../../docs/admin-access.md", import.meta.url), "utf8");
    for (const line of REFUSED.trim().split("\n")) {
      const [head = "", why] = line.split(" | ");
      const [methods = "", path = ""] = head.split(" ");
      const shown = path.replace("/_synapse/admin", "").replace("*", "USER");
      const verbs = methods.split(",").map((method) => `\`${method}\``);
      expect(page).toContain(`| ${verbs.join(", ")} \`${shown}\` | ${why} |`);
    }
  });

  it("asks for a list in parts only, however the part is spelled", () => {
    for (const query of ["?limit=1000", "?from=5&limit=10", "?limits=9999", "", "?name=limit"])
      expect(adminPathOf("GET", `${USERS}${query}`).kind).toBe("pass");
    for (const limit of ["1001", "9_999", "+9999", "%39999", "1e9", " 9999", "-1", ""])
      expect(adminPathOf("GET", `${USERS}?from=0&limit=${limit}`)).toMatchObject({
        kind: "refused",
        why: expect.stringContaining("1000") as string,
      });
    for (const query of ["?limit=1&limit=9999", "?a=b;limit=9999", "?%6cimit=9999"])
      expect(adminPathOf("GET", `${USERS}${query}`).kind).toBe("refused");
  });

  it("lets nobody have all of a list that is whole where no part is asked for", () => {
    const rooms = "/_matrix/client/v3/publicRooms";
    for (const query of ["", "?", "?limit=0", "?limit=00", "?server=b.example", "?limit=10&limit=0", "?limit=1001"])
      expect([query, adminPathOf("GET", `${rooms}${query}`).kind]).toEqual([query, "refused"]);
    for (const query of ["?limit=10", "?since=x&limit=1000"])
      expect([query, adminPathOf("GET", `${rooms}${query}`).kind]).toEqual([query, "pass"]);
    expect(adminPathOf("OPTIONS", rooms).kind).toBe("pass");
    expect(adminPathOf("GET", "/_synapse/admin/v1/search_users/@a:b?term=%25")).toMatchObject({ kind: "refused" });
  });

  it("takes no other spelling of a path for it", () => {
    for (const path of [
      "/_synapse/admin/v1/%72egister",
      "/_synapse/admin/v1//register",
      "/_synapse/admin/v1/register/",
      "/_synapse/admin/v1/Register",
      "/_synapse/admin/v1/users/../register",
      "/_synapse/admin/v1/rooms/%2e%2E",
      "/_synapse/admin/v1/rooms/x\\..\\register",
      "/_synapse/admin/v1/users/x/override%5Fratelimit",
    ])
      for (const method of ["GET", "POST"]) expect(adminPathOf(method, path).kind).not.toBe("pass");
    // What is not fixed is Synapse's own to read.
    expect(adminPathOf("GET", "/_synapse/admin/v1/rooms/!a%2Fb%3Aa.example").kind).toBe("pass");
  });

  it("asks for the same with HEAD as with GET, and nothing of who asks with OPTIONS", () => {
    expect(adminPathOf("HEAD", USERS).kind).toBe("pass");
    expect(adminPathOf("HEAD", "/_synapse/admin/v1/register").kind).toBe("refused");
    expect(adminPathOf("OPTIONS", "/_synapse/admin/v1/users/x/override_ratelimit").kind).toBe("pass");
    expect(adminPathOf("OPTIONS", "/_synapse/admin/v1/new_thing").kind).toBe("unknown");
  });
});

describe("the bound of one client's requests at the entrance", () => {
  it("lets a page load at once, and then so many a second; of IPv6, a network is one client", () => {
    let now = 0;
    const access = new AdminAccess({ allowedNetworks: [], origins: [] }, () => now);
    const passed = (address: string, times = 1_000) =>
      Array.from({ length: times }, () => access.tooMany(address)).filter((error) => error === undefined).length;
    expect(passed("192.0.2.1")).toBe(300);
    expect(passed("192.0.2.2")).toBe(300);
    now = 1_000;
    expect(passed("192.0.2.1")).toBe(50);
    now = 3_600_000;
    expect(passed("192.0.2.1")).toBe(300);
    expect(passed("2001:db8::1") + passed("2001:db8::2") + passed("2001:db8:0:0:9::1")).toBe(300);
    expect(passed("2001:db8:0:1::1")).toBe(300);
  });
});
