import type { FastifyRequest } from "fastify";
import { request } from "node:http";
import { ensureConsole } from "../../console/build.ts";
import { afterEach, beforeEach, expect, test } from "vitest";
import { sessionCookieOf } from "../../src/api/access/session-cookie.ts";
import { API_TOKEN, GATEWAY_TOKEN, startApiUnderTest, type ApiUnderTest } from "./api-under-test.ts";

let api: ApiUnderTest;
let clock = Date.now();
beforeEach(async () => {
  clock = Date.now();
  api = await startApiUnderTest(undefined, { consoleHosts: ["console.example"], now: () => new Date(clock) });
});
afterEach(() => api.close());

interface Answer {
  status: number;
  cookie: string;
  setCookie: string;
  body: string;
}

/** As a browser sends it; `fetch` lets nobody choose Host and Origin. */
function browse(path: string, headers: Record<string, string> = {}, method = "GET", body?: object): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const json = body === undefined ? {} : { "content-type": "application/json" };
    const sent = request(`${api.url}${path}`, { method, headers: { ...json, ...headers } }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("end", () => {
        const setCookie = response.headers["set-cookie"]?.[0] ?? "";
        resolve({ status: response.statusCode ?? 0, setCookie, cookie: setCookie.split(";", 1)[0] ?? "", body: text });
      });
    });
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const own = (more: Record<string, string> = {}) => ({ origin: api.url, "sec-fetch-site": "same-origin", ...more });

const signIn = (token = API_TOKEN, headers: Record<string, string> = own()) =>
  browse("/v1/session", headers, "POST", { token });

test("a token is exchanged for a session that may do what the token may, and no more", async () => {
  const viewer = await signIn(api.namedTokens.create("vera", "viewer"));
  expect(viewer.status).toBe(201);
  expect(JSON.parse(viewer.body)).toMatchObject({ name: "vera", role: "viewer" });
  const headers = own({ cookie: viewer.cookie });
  expect(JSON.parse((await browse("/v1/whoami", headers)).body)).toEqual({ name: "vera", role: "viewer" });
  expect((await browse("/v1/tenants", headers, "POST", { name: "clinic-a" })).status).toBe(403);
  expect((await browse("/v1/tokens", headers)).status).toBe(403);
});

test("scripts cannot read the cookie, other sites do not send it, and it is not the token", async () => {
  const { setCookie } = await signIn();
  expect(setCookie).toMatch(/; HttpOnly/);
  expect(setCookie).toMatch(/; SameSite=Strict/);
  expect(setCookie).toMatch(/; Path=\//);
  expect(setCookie).not.toContain(API_TOKEN);
  expect(setCookie).toContain(`synapse-shards-${new URL(api.url).port}=`);
  const secure = await signIn(API_TOKEN, own({ host: "console.example", origin: "https://console.example" }));
  expect(secure.setCookie).toMatch(/^__Host-synapse-shards=.*; Secure/);
});

test("a wrong token, and the gateways', begin no session", async () => {
  for (const token of ["wrong", GATEWAY_TOKEN]) {
    const { status, setCookie } = await signIn(token);
    expect([status, setCookie]).toEqual([401, ""]);
  }
});

// Guards against: a session that can read metrics alone, and cannot even be signed out.
test("a token for metrics begins no session, and is told why", async () => {
  const { status, setCookie, body } = await signIn(
    api.namedTokens.create("prometheus", "tenant-metrics", { tenants: "customer=us" }),
  );
  expect([status, setCookie]).toEqual([403, ""]);
  expect(body).toContain("the role tenant-metrics is for what collects metrics");
});

test("a session ends with its token, with its time, and when it is signed out", async () => {
  const cookieOf = async (token?: string) => own({ cookie: (await signIn(token)).cookie });
  const revoked = await cookieOf(api.namedTokens.create("ada", "operator"));
  expect((await browse("/v1/whoami", revoked)).status).toBe(200);
  api.namedTokens.revoke("ada");
  expect((await browse("/v1/whoami", revoked)).status).toBe(401);

  const signedOut = await cookieOf();
  const out = await browse("/v1/session", signedOut, "DELETE");
  expect(out.status).toBe(200);
  expect(out.setCookie).toContain("Expires=Thu, 01 Jan 1970");
  expect((await browse("/v1/whoami", signedOut)).status).toBe(401);

  const old = await cookieOf();
  clock += 11 * 3_600_000;
  expect((await browse("/v1/whoami", old)).status).toBe(200);
  clock += 2 * 3_600_000;
  expect((await browse("/v1/whoami", old)).status).toBe(401);
});

test("a session outlasts the controller that began it", async () => {
  const { cookie } = await signIn();
  const { host, origin } = new URL(api.url);
  await api.close();
  // Its port may be another one's by now; a browser would still name it.
  api = await startApiUnderTest(undefined, { now: () => new Date(clock) });
  expect((await browse("/v1/whoami", own({ cookie, host, origin }))).status).toBe(200);
});

test("a cookie that somebody made up, or changed, is worth nothing", async () => {
  const { cookie } = await signIn();
  const changed = cookie.slice(0, -2) + (cookie.endsWith("AA") ? "BB" : "AA");
  for (const made of [changed, cookie.replace(/=.*/, "=e30.e30.e30.e30.e30"), cookie.replace(/=.*/, "=")])
    expect((await browse("/v1/whoami", own({ cookie: made }))).status).toBe(401);
});

test("what another page makes a browser send is refused, also from another port of this machine", async () => {
  const { cookie } = await signIn();
  const foreign: Record<string, string>[] = [
    { origin: "https://evil.example", "sec-fetch-site": "cross-site" },
    { origin: "http://127.0.0.1:1", "sec-fetch-site": "same-site" },
    { origin: "null", "sec-fetch-site": "cross-site" },
    // A browser that says nothing of the page.
    {},
  ];
  for (const headers of foreign) {
    const tried = await browse("/v1/tenants", { cookie, ...headers }, "POST", { name: "clinic-a" });
    expect([headers, tried.status]).toEqual([headers, 403]);
    expect([headers, (await signIn(API_TOKEN, headers)).status]).toEqual([headers, 403]);
  }
  expect((await browse("/v1/status", { cookie, "sec-fetch-site": "same-site" })).status).toBe(403);
  expect((await browse("/v1/tenants", own({ cookie }), "POST", { name: "clinic-a" })).status).toBe(201);
});

test("a name that was pointed at this address is refused, and those of the configuration are not", async () => {
  const { cookie } = await signIn();
  const { port } = new URL(api.url);
  const as = (host: string) => ({ cookie, host, origin: `http://${host}`, "sec-fetch-site": "same-origin" });
  expect((await browse("/v1/status", as(`rebound.example:${port}`))).status).toBe(403);
  expect((await signIn(API_TOKEN, as(`rebound.example:${port}`))).status).toBe(403);
  expect((await browse("/overview", as(`rebound.example:${port}`))).status).toBe(403);
  expect((await browse("/v1/status", as(`localhost:${port}`))).status).toBe(200);
  expect((await signIn(API_TOKEN, as("console.example"))).status).toBe(201);
  // A program that brings a token is not misled by names.
  const bearer = { host: "rebound.example", authorization: `Bearer ${API_TOKEN}` };
  expect((await browse("/v1/status", bearer)).status).toBe(200);
});

test("signing in is tried ten times a minute, not more", async () => {
  const answers: number[] = [];
  for (let attempt = 0; attempt < 12; attempt += 1) answers.push((await signIn(`guess-${attempt}`)).status);
  expect(answers).toEqual([...Array<number>(10).fill(401), 429, 429]);
  expect(JSON.parse((await signIn()).body)).toMatchObject({ error: { code: "RateLimited" } });
});

test("the audit log has who signed in and out, and who tried to", async () => {
  const { cookie } = await signIn();
  await signIn("wrong");
  await browse("/v1/session", own({ cookie }), "DELETE");
  expect(api.audited.map(({ action, actor, status }) => [action, actor, status])).toEqual([
    ["signIn", "owner", 201],
    ["signIn", null, 401],
    ["signOut", "owner", 200],
  ]);
});

test("pages of the console need no token, allow nothing but our own files, and are not framed", async () => {
  await ensureConsole();
  await api.close();
  api = await startApiUnderTest();
  const { status, headers } = await fetch(`${api.url}/tenants/clinic-a`);
  expect(status).toBe(200);
  const policy = headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
  expect(policy).toContain("frame-ancestors 'none'");
  expect(policy).not.toContain("unsafe");
  expect(headers.get("x-content-type-options")).toBe("nosniff");
  const unknown = await fetch(`${api.url}/v1/nothing`);
  expect(unknown.status).toBe(401);
});

test("over HTTPS no cookie counts that pages of a sibling domain could have set", () => {
  const read = (
    headers: Record<string, string>,
    { url = "https://console.hosting.example", protocol = "http" } = {},
  ) => {
    const cookie = "synapse-shards-80=planted; synapse-shards-8010=own; synapse-shards-flow-80=planted";
    const request = { headers: { host: "console.hosting.example", cookie, ...headers }, protocol } as FastifyRequest;
    return [sessionCookieOf(request, { url }), sessionCookieOf(request, { url, purpose: "flow" })];
  };
  expect(read({})).toEqual([undefined, undefined]);
  const http = { url: "http://localhost:8010" };
  expect(read({ "sec-fetch-site": "same-origin" }, http)).toEqual([undefined, undefined]);
  expect(read({ origin: "https://console.hosting.example" }, http)).toEqual([undefined, undefined]);
  expect(read({}, { ...http, protocol: "https" })).toEqual([undefined, undefined]);
  expect(read({ cookie: "synapse-shards-80=planted; __Host-synapse-shards=own" })[0]).toBe("own");
  // Neither this machine nor an address has sibling domains; and plain HTTP has no other names.
  for (const host of ["localhost:8010", "127.0.0.1:8010", "[::1]:8010", "console.localhost:8010"])
    expect([host, read({ host, "sec-fetch-site": "same-origin" })[0]]).toEqual([host, "own"]);
  expect(read({ host: "console.lan:8010", origin: "http://console.lan:8010" })[0]).toBe("own");
});
