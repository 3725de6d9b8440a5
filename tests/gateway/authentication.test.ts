import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { afterEach, describe, expect, it } from "vitest";
import { isForAuthentication, routeToAuthentication } from "../../src/gateway/authentication-paths.ts";
import type { Route } from "../../src/model/routes.ts";
import { Authority } from "../support/authority.ts";
import { ask, Bench, eventually, serving } from "./harness.ts";

const CLIENT = "/_matrix/client";

describe("what an authentication service answers", () => {
  it.each([
    "/v3/login",
    "/r0/login",
    "/api/v1/login",
    "/unstable/login?x=/",
    "/v3/login/sso/redirect",
    "/v3/login/sso/redirect?redirectUrl=https%3A%2F%2Fapp.example",
    "/v3/login/sso/redirect/oidc-own",
    "/v3/logout",
    "/v3/logout/all",
    "/v3/refresh",
  ])("is %s", (path) => expect(isForAuthentication(CLIENT + path)).toBe(true));

  it.each([
    "/v3/sync",
    "/v1/login/get_token",
    "/v3/login/",
    "/v3/login/sso",
    "/v3/login/sso/redirect/a/b",
    "/v3/logout/some",
    "/v3/refresh/x",
    "/v9/login",
    "/v3/logi%6e",
    "/v3/../login",
    "/versions?x=/_matrix/client/v3/login",
  ])("is not %s", (path) => expect(isForAuthentication(CLIENT + path)).toBe(false));

  it("is asked there by a route that has nothing of the shard, unless the tenant is unavailable", () => {
    const shard = { address: "127.0.0.1:1", secret: "s", share: 0.5, shard: "a", draining: "127.0.0.1:2" };
    const route: Route = {
      tenant: "a",
      hosts: ["a"],
      state: "parked",
      epoch: 3,
      authentication: "127.0.0.1:9",
      ...shard,
    };
    expect(routeToAuthentication(route)).toEqual({
      tenant: "a",
      hosts: ["a"],
      state: "serving",
      epoch: 3,
      address: "127.0.0.1:9",
      authentication: "127.0.0.1:9",
    });
    const suspended: Route = { ...route, state: "unavailable" };
    expect(routeToAuthentication(suspended)).toBe(suspended);
    const { authentication: _, ...without } = route;
    expect(routeToAuthentication(without)).toBe(without);
  });
});

describe("a tenant with an authentication service", () => {
  let bench: Bench;
  afterEach(() => bench.stop());

  it("has logins answered there while it serves, moves and sleeps, and everything else by its homeserver; the shard's secret stays with it", async () => {
    bench = await Bench.start([]);
    const [home, service] = [await bench.origin(), await bench.origin()];
    const route = { ...serving("a", home), secret: "of-the-shard", authentication: service.address };
    const login = () => ask(bench, "a.example", { method: "POST", path: `${CLIENT}/v3/login`, body: "{}" });
    await bench.controller.update([route]);
    expect((await ask(bench, "a.example", { path: `${CLIENT}/v3/account/whoami` })).json.port).toBe(home.port);
    expect((await login()).json.port).toBe(service.port);
    const { address: _, ...nowhere } = route;
    for (const state of ["parked", "asleep"] as const) {
      await bench.controller.update([{ ...nowhere, state }]);
      expect([state, (await login()).json.port]).toEqual([state, service.port]);
    }
    expect(bench.controller.wakes).toEqual([]);
    expect(service.seen.map(({ headers }) => headers["x-synapse-shards-secret"])).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(service.seen[0]!.headers).toMatchObject({ host: "a.example", "x-forwarded-for": "127.0.0.1" });
  });

  it("lets nobody in while it is suspended", async () => {
    bench = await Bench.start([]);
    const service = await bench.origin();
    const { address: _, ...route } = serving("a", service);
    await bench.controller.update([
      { ...route, state: "unavailable", reason: "Suspended", authentication: service.address },
    ]);
    expect((await ask(bench, "a.example", { path: `${CLIENT}/v3/login` })).status).toBe(403);
    expect(service.seen).toEqual([]);
  });

  it("has the service ask it in turn while as many logins wait for that as it has places", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 3 });
    const home = await bench.origin();
    const all = Promise.withResolvers<void>();
    let come = 0;
    const service = await bench.origin((request, response) => {
      request.resume();
      if ((come += 1) === 3) all.resolve();
      const asksHome = () => ask(bench, "a.example", { path: "/_synapse/mas/query_user" });
      void all.promise.then(asksHome).then(({ status }) => response.end(`{"bytes": ${status}}`));
    });
    await bench.controller.update([{ ...serving("a", home), authentication: service.address }]);
    const login = () => ask(bench, "a.example", { method: "POST", path: `${CLIENT}/v3/login`, body: "{}" });
    expect((await Promise.all([login(), login(), login()])).map(({ json }) => json.bytes)).toEqual([200, 200, 200]);
    // As many as there are places: nobody had to wait for one.
    expect(await bench.metric("share_seconds_count")).toBe(0);
  });

  it("has no more logins there at once than it has places, however slow the service is, and all of its own places meanwhile", async () => {
    bench = await Bench.start([], { maxInFlightPerTenant: 2 });
    const home = await bench.origin();
    const held: (() => void)[] = [];
    const service = await bench.origin((request, response) => {
      request.resume();
      held.push(() => response.end("{}"));
    });
    await bench.controller.update([{ ...serving("a", home), authentication: service.address }]);
    const login = () => ask(bench, "a.example", { method: "POST", path: `${CLIENT}/v3/login`, body: "{}" });
    const logins = [login(), login(), login()];
    const waiting = () => bench.metric('share_waiting_requests{tenant="a"}');
    await eventually("two are there, and one waits", async () => held.length === 2 && (await waiting()) === 1);
    expect((await ask(bench, "a.example", { path: `${CLIENT}/v3/account/whoami` })).json.port).toBe(home.port);
    held.shift()!();
    await eventually("it is the third one's turn", () => held.length === 2);
    for (const answer of held) answer();
    expect((await Promise.all(logins)).map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  it("that does not answer in time, or breaks off, is to blame itself, and not a move of its tenant", async () => {
    bench = await Bench.start([], {}, { authenticationMs: 100 });
    const home = await bench.origin();
    let breaksOff = false;
    const service = await bench.origin((request, response) => {
      request.resume();
      if (breaksOff) response.destroy();
    });
    const login = () => ask(bench, "a.example", { method: "POST", path: `${CLIENT}/v3/login`, body: "{}" });
    const { address: _, ...nowhere } = { ...serving("a", home), authentication: service.address };
    await bench.controller.update([{ ...nowhere, state: "parked" }]);
    const slow = await login();
    expect([slow.status, slow.headers["x-synapse-shards-error"]]).toEqual([504, "AuthenticationTimeout"]);
    breaksOff = true;
    expect((await login()).status).toBe(502);
    const { parks } = await bench.controller.update([{ ...serving("a", home), authentication: service.address }]);
    expect(parks).toEqual({ a: { parked: 0, failed: 0 } });
    expect(bench.logged.join("")).toContain("authentication service broke off");
    expect(bench.logged.join("")).not.toContain("homeserver broke off");
  });

  it("is sent no login that is larger than any, as a slow sender would take its places", async () => {
    bench = await Bench.start([]);
    const [home, service] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([{ ...serving("a", home), authentication: service.address }]);
    const login = (bytes: number) =>
      ask(bench, "a.example", { method: "POST", path: `${CLIENT}/v3/login`, body: "x".repeat(bytes) });
    expect((await login(64 * 1024)).json).toMatchObject({ port: service.port, bytes: 64 * 1024 });
    expect((await login(64 * 1024 + 1)).status).toBe(413);
    expect(service.seen).toHaveLength(1);
  });

  it("whose URL leads back to the gateway has its logins refused in words, at once", async () => {
    bench = await Bench.start([]);
    const home = await bench.origin();
    await bench.controller.update([{ ...serving("a", home), authentication: `127.0.0.1:${bench.port}` }]);
    const login = await ask(bench, "a.example", { method: "POST", path: `${CLIENT}/v3/login`, body: "{}" });
    expect([login.status, login.headers["x-synapse-shards-error"]]).toEqual([508, "AuthenticationLoop"]);
    expect(bench.logged.filter((line) => line.includes('"msg":"request"'))).toHaveLength(2);
  });

  it("that is away tells clients to come again at once, and its tenant's other requests go on", async () => {
    bench = await Bench.start([]);
    const [home, service] = [await bench.origin(), await bench.origin()];
    await bench.controller.update([{ ...serving("a", home), authentication: service.address }]);
    await service.close();
    const login = await ask(bench, "a.example", { method: "POST", path: `${CLIENT}/v3/login`, body: "{}" });
    expect(login).toMatchObject({ status: 503, json: { errcode: "M_LIMIT_EXCEEDED" } });
    expect(login.headers).toMatchObject({ "x-synapse-shards-error": "AuthenticationAway", "retry-after": "2" });
    expect((await ask(bench, "a.example", { path: `${CLIENT}/v3/sync` })).json.port).toBe(home.port);
  });
});

describe("an authentication service with TLS", () => {
  const login = { method: "POST", path: `${CLIENT}/v3/login`, body: "{}" };

  it("is asked under the name in its certificate, which is verified; one of an authority that nobody knows is asked nothing", async () => {
    const [known, unknown] = await Promise.all([Authority.make("CN=Known"), Authority.make("CN=Unknown")]);
    const asked: (string | undefined)[] = [];
    const listening = async (authority: Authority, name: string) => {
      const { certificate, key } = await authority.issue([name]);
      const server = createServer({ cert: certificate, key }, (incoming, outgoing) => {
        incoming.resume();
        asked.push(incoming.headers.host);
        outgoing.end(JSON.stringify({ forwarded: incoming.headers["x-forwarded-host"] }));
      });
      await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
      return { server, port: (server.address() as AddressInfo).port };
    };
    const services = [
      await listening(known, "localhost"),
      await listening(unknown, "localhost"),
      await listening(known, "other.example"),
    ];
    setDefaultCACertificates([...getCACertificates("default"), known.pem]);
    const bench = await Bench.start([]);
    try {
      const home = await bench.origin();
      const answers = [];
      for (const service of services) {
        await bench.controller.update([{ ...serving("a", home), authentication: `https://localhost:${service.port}` }]);
        answers.push(await ask(bench, "a.example", login));
      }
      expect(answers.map(({ status }) => status)).toEqual([200, 503, 503]);
      expect(asked).toEqual([`localhost:${services[0]!.port}`]);
      expect(answers[0]!.json).toMatchObject({ forwarded: "a.example" });
      expect(answers[1]!.headers["x-synapse-shards-error"]).toBe("AuthenticationAway");
      const said = bench.logged.filter((line) => line.includes("authentication service cannot be reached"));
      expect(said.map((line) => (JSON.parse(line) as { code: string }).code)).toEqual([
        "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        "ERR_TLS_CERT_ALTNAME_INVALID",
      ]);
    } finally {
      await bench.stop();
      for (const { server } of services) server.close();
    }
  });
});
