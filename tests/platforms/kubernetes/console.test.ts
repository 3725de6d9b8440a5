import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";
import fastify from "fastify";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ensureConsole } from "../../../console/build.ts";
import { registerAuthentication } from "../../../src/api/access/authentication.ts";
import { Sessions } from "../../../src/api/access/sessions.ts";
import { UserError } from "../../../src/model/errors.ts";
import type { Actor } from "../../../src/model/role.ts";
import { KubernetesSignInSchema } from "../../../src/model/sign-in.ts";
import { startConsoleListener } from "../../../src/platforms/kubernetes/console/console-listener.ts";
import { startLeaderProxy } from "../../../src/platforms/kubernetes/leader-proxy.ts";
import { ReplicaProof } from "../../../src/platforms/kubernetes/replica-proof.ts";
import { SecretEnds } from "../../../src/platforms/kubernetes/console/secret-ends.ts";
import { TokenReviews } from "../../../src/platforms/kubernetes/console/token-reviews.ts";
import { API_TOKEN, startApiUnderTest } from "../../api/api-under-test.ts";

const HOST = "console.example";
const JWT = "aaaa.bbbb.cccc";

const ROLES = KubernetesSignInSchema.parse({
  roles: [
    { user: "system:serviceaccount:ops:ci", role: "operator" },
    { group: "matrix-admins", role: "admin" },
    { group: "acme", role: "tenant-admin", tenants: "customer=acme" },
  ],
});

const listening = async (server: Server) => {
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return (server.address() as AddressInfo).port;
};
const ended = (server: Server) => {
  server.closeAllConnections();
  return new Promise((done) => server.close(done));
};

describe("tokens of the API server", () => {
  let now: number;
  let asked: string[];
  let status: object;
  let reviews: TokenReviews;
  beforeEach(() => {
    now = 0;
    asked = [];
    status = { authenticated: true, user: { username: "ada", groups: ["matrix-admins"] } };
    reviews = new TokenReviews(
      ROLES,
      async (token) => {
        asked.push(token);
        return status;
      },
      () => now,
    );
  });

  it("have the role of their user or group, the first that fits", async () => {
    expect(await reviews.actorOf(JWT)).toEqual({ name: "kubernetes:ada", role: "admin" });
    status = { authenticated: true, user: { username: "carl", groups: ["acme", "system:authenticated"] } };
    const who = { name: "kubernetes:carl", role: "tenant-admin", tenants: "customer=acme" };
    expect(await reviews.actorOf(`${JWT}2`)).toEqual(who);
    status = { authenticated: true, user: { username: "system:serviceaccount:ops:ci" } };
    expect(await reviews.actorOf(`${JWT}3`)).toMatchObject({ role: "operator" });
  });

  it("are nobody's where the API server says so, or no role fits", async () => {
    for (const said of [
      { authenticated: false, user: { username: "ada", groups: ["matrix-admins"] } },
      { user: { username: "ada", groups: ["matrix-admins"] } },
      { authenticated: true, user: { username: "eve", groups: ["system:authenticated"] } },
      // A user called like a group has not its role.
      { authenticated: true, user: { username: "matrix-admins", groups: [] } },
      { authenticated: true },
    ]) {
      status = said;
      now += 61_000;
      expect([said, await reviews.actorOf(JWT)]).toEqual([said, undefined]);
    }
  });

  it("are asked about once a minute, and not at all where they are none", async () => {
    for (let count = 0; count < 10; count += 1) await reviews.actorOf(JWT);
    expect(asked).toEqual([JWT]);
    status = { authenticated: false };
    now += 61_000;
    expect(await reviews.actorOf(JWT)).toBeUndefined();
    expect(await reviews.actorOf("a-guessed-token")).toBeUndefined();
    expect(asked).toEqual([JWT, JWT]);
  });

  it("that somebody makes up do not keep the API server busy", async () => {
    for (let count = 0; count < 50; count += 1) await reviews.actorOf(`${JWT}${count}`);
    await expect(reviews.actorOf(`${JWT}x`)).rejects.toThrow("too many unknown tokens");
    now += 10_001;
    expect(await reviews.actorOf(`${JWT}x`)).toMatchObject({ name: "kubernetes:ada" });
  });

  it("that are known are asked about, and taken back, however many others make up", async () => {
    const ada = { name: "kubernetes:ada", role: "admin" };
    expect(await reviews.actorOf(JWT)).toEqual(ada);
    const good = status;
    for (let minute = 0; minute < 30; minute += 1) {
      status = { authenticated: false };
      now += 61_000;
      for (let count = 0; count < 50; count += 1) await reviews.actorOf(`${JWT}${minute}-${count}`);
      await expect(reviews.actorOf(`${JWT}x`)).rejects.toThrow("too many unknown tokens");
    }
    status = good;
    expect(await reviews.actorOf(JWT)).toEqual(ada);
    status = { authenticated: false };
    now += 61_000;
    expect(await reviews.actorOf(JWT)).toBeUndefined();
    // From then on it is one like any other.
    now += 61_000;
    for (let count = 0; count < 50; count += 1) await reviews.actorOf(`${JWT}z${count}`);
    await expect(reviews.actorOf(JWT)).rejects.toThrow("too many unknown tokens");
  });

  it("keep a stream while the API server is away, and end it when that says no", async () => {
    const said: (Actor | undefined | Error)[] = [{ name: "kubernetes:ada", role: "admin" }];
    const app = fastify();
    registerAuthentication(app, {
      apiToken: "owner",
      gatewayToken: "gateway",
      reviewToken: async () => {
        const next = said.shift();
        if (next instanceof Error) throw next;
        return next;
      },
    });
    let isStillGood: (() => Promise<boolean>) | undefined;
    app.get("/", async (request) => {
      ({ isStillGood } = request);
      return "";
    });
    await app.inject({ url: "/", headers: { authorization: `Bearer ${JWT}` } });
    const clock = vi.spyOn(performance, "now");
    const later = (ms: number) => clock.mockReturnValue(performance.now() + ms);
    const ada: Actor = { name: "kubernetes:ada", role: "admin" };
    const away = new UserError("Unavailable", "away");
    // Each yes counts for two minutes, and no longer.
    for (const [answer, ms, isGood] of [
      [away, 119_000, true],
      [ada, 0, true],
      [away, 119_000, true],
      [away, 2_000, false],
      [ada, 0, true],
    ] as const) {
      said.push(answer);
      later(ms);
      expect([answer, ms, await isStillGood?.()]).toEqual([answer, ms, isGood]);
    }
    clock.mockRestore();
    said.push(new UserError("Unavailable", "away"), { name: "kubernetes:ada", role: "admin" }, undefined);
    expect([await isStillGood?.(), await isStillGood?.(), await isStillGood?.()]).toEqual([true, true, false]);
    said.push({ name: "kubernetes:ada", role: "viewer" }, new Error("a bug"));
    expect([await isStillGood?.(), await isStillGood?.()]).toEqual([false, false]);
    await app.close();
  });

  it("are good for calls and for sessions, and end both at once when they are taken back", async () => {
    const parts = { reviewToken: (token: string) => reviews.actorOf(token) };
    const api = await startApiUnderTest(undefined, { parts });
    try {
      expect(await (await api.request("/v1/whoami", { token: JWT })).json()).toMatchObject({ name: "kubernetes:ada" });
      const headers = { "sec-fetch-site": "same-origin", origin: api.url };
      const body = JSON.stringify({ token: JWT });
      const begun = await api.request("/v1/session", { method: "POST", token: null, body, headers });
      const cookie = begun.headers.getSetCookie()[0]?.split(";", 1)[0] ?? "";
      const who = async () =>
        (await api.request("/v1/whoami", { token: null, headers: { ...headers, cookie } })).status;
      expect(await who()).toBe(200);
      status = { authenticated: false };
      now += 61_000;
      expect(await who()).toBe(401);
      expect((await api.request("/v1/whoami", { token: JWT })).status).toBe(401);
      // The owner's stays the owner's, without a question.
      const { length } = asked;
      expect(await (await api.request("/v1/whoami")).json()).toMatchObject({ name: "owner" });
      expect(asked).toHaveLength(length);
    } finally {
      await api.close();
    }
  });
});

describe.each(["leads", "follows"])("the console's own port, of a replica that %s", (part) => {
  let leader: Awaited<ReturnType<typeof startApiUnderTest>>;
  let listener: Awaited<ReturnType<typeof startConsoleListener>>;
  let upstream: { url: string; own: boolean } | undefined;
  let proxy: Awaited<ReturnType<typeof startLeaderProxy>>;
  let replicaTokens: string[];
  const proof = new ReplicaProof(() => replicaTokens);
  const logger = pino({ level: "silent" });
  beforeEach(async () => {
    replicaTokens = [API_TOKEN];
    await ensureConsole();
    leader = await startApiUnderTest(undefined, {
      consoleHosts: [HOST],
      parts: { trustProxy: true },
    });
    const own = { url: leader.url, own: true };
    proxy = await startLeaderProxy({
      host: "127.0.0.1",
      port: 0,
      metrics: new Registry(),
      logger,
      upstream: () => own,
      proof: new ReplicaProof(() => [API_TOKEN]),
    });
    upstream = part === "leads" ? own : { url: `http://127.0.0.1:${proxy.port}`, own: false };
    listener = await startConsoleListener({
      host: "127.0.0.1",
      port: 0,
      hosts: [HOST],
      trustedProxies: ["127.0.0.1"],
      logger,
      upstream: () => upstream,
      proof,
    });
  });
  afterEach(async () => {
    await listener.close();
    await proxy.close();
    await leader.close();
  });

  const ask = async (path: string, init: RequestInit & { host?: string } = {}) => {
    const { request } = await import("node:http");
    const { host = HOST, method = "GET", headers = {}, body } = init;
    return new Promise<{ status: number; text: string; headers: IncomingMessage["headers"] }>((resolve, reject) => {
      const all = { host, ...(headers as Record<string, string>) };
      const sent = request({ port: listener.port, host: "127.0.0.1", path, method, headers: all }, (answer) => {
        let text = "";
        answer.on("data", (chunk: Buffer) => (text += chunk.toString()));
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text, headers: answer.headers }));
      });
      sent.on("error", reject);
      sent.end(body as string | undefined);
    });
  };
  const own = { origin: `https://${HOST}`, "sec-fetch-site": "same-origin", "content-type": "application/json" };

  it("shows the pages and passes what they ask on to the leader, also a session by its cookie", async () => {
    const page = await ask("/overview");
    expect([page.status, page.headers["content-security-policy"]]).toEqual([200, expect.stringContaining("'self'")]);
    const body = JSON.stringify({ token: API_TOKEN });
    const headers = { ...own, "x-forwarded-for": "203.0.113.7" };
    const begun = await ask("/v1/session", { method: "POST", headers, body });
    expect(begun.status).toBe(201);
    const [cookie = ""] = begun.headers["set-cookie"]?.[0]?.split(";", 1) ?? [];
    expect(cookie).toMatch(/^__Host-synapse-shards=/);
    expect((await ask("/v1/whoami", { headers: { ...own, cookie } })).status).toBe(200);
    const foreign = { ...own, cookie, origin: "https://evil.example", "sec-fetch-site": "cross-site" };
    expect((await ask("/v1/whoami", { headers: foreign })).status).toBe(403);
    expect(leader.audited).toContainEqual(expect.objectContaining({ action: "signIn", client: "203.0.113.7" }));
  });

  it("has neither metrics nor what is for gateways, however it is spelled", async () => {
    const paths = [
      "/metrics",
      "/healthz",
      "/readyz",
      "/v1/routes?gateway=g",
      "/v1/%72outes",
      "/v1/gateway/certificates",
    ];
    for (const path of paths) expect([path, (await ask(path)).status]).toEqual([path, 404]);
  });

  it("is not shown under another name, nor does a session count there", async () => {
    expect((await ask("/overview", { host: "evil.example" })).status).toBe(403);
    const headers = { ...own, cookie: "__Host-synapse-shards=x", origin: "https://evil.example" };
    expect((await ask("/v1/whoami", { host: "evil.example", headers })).status).toBe(403);
  });

  it.runIf(part === "follows")("has no word at the leader without a replica's proof", async () => {
    const body = JSON.stringify({ token: API_TOKEN });
    const signIn = (headers: Record<string, string> = {}) =>
      ask("/v1/session", { method: "POST", headers: { ...own, "x-forwarded-for": "203.0.113.8", ...headers }, body });
    for (const tokens of [[], ["another"]]) {
      replicaTokens = tokens;
      expect((await signIn()).status).toBe(403);
      const made = { "x-synapse-shards-browsed": HOST, "x-synapse-shards-replica": "made-up" };
      expect((await signIn(made)).status).toBe(403);
    }
    expect(leader.audited).not.toContainEqual(expect.objectContaining({ client: "203.0.113.8" }));
  });

  it("says that nobody leads, and shows its pages all the same", async () => {
    upstream = undefined;
    expect((await ask("/v1/status")).status).toBe(503);
    expect((await ask("/overview")).status).toBe(200);
  });
});

describe("sessions that were signed out", () => {
  let server: Server;
  let secret: { stringData: Record<string, string> } | undefined;
  let config: KubeConfig;
  beforeEach(async () => {
    secret = undefined;
    server = createServer((request, answer) => {
      let text = "";
      request.on("data", (chunk: Buffer) => (text += chunk.toString()));
      request.on("end", () => {
        answer.setHeader("content-type", "application/json");
        if (request.method === "POST" || (request.method === "PUT" && secret))
          secret = JSON.parse(text) as typeof secret;
        else if (!secret) return void answer.writeHead(404).end('{"kind":"Status","code":404}');
        const data = Object.entries(secret?.stringData ?? {}).map(([key, value]) => [
          key,
          Buffer.from(value).toString("base64"),
        ]);
        answer.end(JSON.stringify({ kind: "Secret", apiVersion: "v1", data: Object.fromEntries(data) as object }));
      });
    });
    const port = await listening(server);
    config = new KubeConfig();
    config.loadFromOptions({
      clusters: [{ name: "fake", server: `http://127.0.0.1:${port}`, skipTLSVerify: true }],
      users: [{ name: "fake" }],
      contexts: [{ name: "fake", cluster: "fake", user: "fake" }],
      currentContext: "fake",
    });
  });
  afterEach(() => ended(server));

  it("stay so at the next leader", async () => {
    const lead = async () => {
      const ends = await SecretEnds.open({ config, namespace: "shards", name: "ended", owner: undefined, labels: {} });
      return new Sessions(
        () => ["token"],
        () => new Date(),
        ends,
      );
    };
    const subject = { kind: "token", digest: "d" } as const;
    const before = await lead();
    const [one, two, stays] = await Promise.all([before.begin(subject), before.begin(subject), before.begin(subject)]);
    await Promise.all([one, two].map(async ({ sealed }) => before.end((await before.open(sealed))!)));
    const after = await lead();
    for (const { sealed } of [one, two]) expect(await after.open(sealed)).toBeUndefined();
    expect(await after.open(stays.sealed)).toBeDefined();
  });
});
