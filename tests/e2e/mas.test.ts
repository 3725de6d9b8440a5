import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { request } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { freePort } from "../support/free-port.ts";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { MAS, MatrixAuthenticationService, PROVIDER_ID, SOCKET_ACTIVATE } from "./support/mas.ts";
import { recordingOf } from "./support/mas-recording.ts";
import { Browser, OidcProvider } from "./support/oidc.ts";
import { HttpWire } from "./support/wire.ts";

/**
 * A tenant with the real Matrix Authentication Service, where `MAS` says there is one (tests/e2e/support/mas.ts). What goes over the wire
 * between both is what tests/e2e/mas-contract.test.ts holds a tenant to, without it; `MAS_RECORD=1` records it again.
 */
const PASSWORD = "a long password of the tests";
const RECORD = process.env["MAS_RECORD"] === "1";
const CLIENT = "https://client.example/";
const DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code";
const SCOPES = "openid urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:";

describe.runIf(MAS)("a tenant whose accounts are kept by Matrix Authentication Service", () => {
  let cluster: Cluster;
  let provider: OidcProvider;
  let mas: MatrixAuthenticationService;
  /** From the tenant and the gateway to the service, and back. */
  let toService: HttpWire;
  let toTenant: HttpWire;
  let home: string;
  let serverName: string;
  const browser = new Browser();

  beforeAll(async () => {
    provider = await OidcProvider.listen();
    cluster = await Cluster.start({});
    home = `http://localhost:${await cluster.gatewayPort()}`;
    serverName = `localhost:${await cluster.gatewayPort("https")}`;
    [toService, toTenant] = [new HttpWire(await freePort()), new HttpWire(await freePort())];
    const args = ["--server-name", serverName, "--mas", toService.url, "--wait"];
    const created = await cluster.cli("tenant", "create", "clinic", ...args);
    if (created.code !== 0) throw new Error(created.stderr);
    const { matrix } = parse(created.stdout.slice(0, created.stdout.indexOf("tenant clinic"))) as { matrix: object };
    const port = await freePort();
    mas = await MatrixAuthenticationService.create({
      port,
      matrix: { ...matrix, endpoint: `http://localhost:${new URL(toTenant.url).port}` },
      provider: { issuer: provider.issuer, client_id: "synapse", client_secret: "secret-of-the-tests" },
    });
    provider.trust(`${mas.url}/upstream/callback/${PROVIDER_ID}`);
    await toTenant.open(home);
    await toService.open(mas.url.replace("localhost", "127.0.0.1"));
    const ms = await mas.start();
    process.stdout.write(
      `the service answers after ${ms.toFixed(0)} ms, the first time, with the schema of its database\n`,
    );
  });
  afterAll(async () => {
    if (RECORD) {
      const recording = recordingOf(toService, toTenant, { serverName, service: mas.url, home });
      await writeFile(join(import.meta.dirname, "support", "mas-contract.json"), JSON.stringify(recording, null, 2));
    }
    await mas?.destroy();
    await cluster?.destroy();
    await toService?.cut();
    await toTenant?.cut();
    provider?.close();
  });

  async function ask(
    method: "GET" | "POST",
    path: string,
    { body, token, form }: { body?: object; token?: string; form?: Record<string, string> } = {},
  ) {
    const url = path.startsWith("http") ? path : home + path;
    const answer = await request(url, {
      method,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        "content-type": form ? "application/x-www-form-urlencoded" : "application/json",
      },
      ...(form ? { body: new URLSearchParams(form).toString() } : body ? { body: JSON.stringify(body) } : {}),
    });
    const text = await answer.body.text();
    return {
      status: answer.statusCode,
      headers: answer.headers,
      body: text.startsWith("{") ? JSON.parse(text) : text,
    };
  }
  const logIn = (user: string, more: object = {}, password = PASSWORD) =>
    ask("POST", "/_matrix/client/v3/login", {
      body: { type: "m.login.password", identifier: { type: "m.id.user", user }, password, ...more },
    });
  const whoAmI = (token: string) => ask("GET", "/_matrix/client/v3/account/whoami", { token });
  const introspections = () => toService.exchanged.filter(({ path }) => path === "/oauth2/introspect").length;
  async function sleepNow(): Promise<void> {
    await until("the tenant sleeps", async () => {
      const { code, stderr } = await cluster.cli("tenant", "sleep", "clinic", "--wait");
      if (code !== 0) throw new Error(stderr);
      return true;
    });
  }
  const phase = async () => (await cluster.tenant("clinic")).phase;
  const register = (who: Browser, username: string, display_name: string) =>
    who.visit(`${mas.url}/register/password`, {
      username,
      password: PASSWORD,
      password_confirm: PASSWORD,
      display_name,
    });
  async function registeredClient(): Promise<string> {
    const { status, body } = await ask("POST", `${mas.url}/oauth2/registration`, {
      body: {
        client_name: "Element X",
        client_uri: CLIENT,
        redirect_uris: [CLIENT],
        grant_types: ["authorization_code", "refresh_token", DEVICE_GRANT],
        token_endpoint_auth_method: "none",
      },
    });
    expect(status).toBe(201);
    return (body as { client_id: string }).client_id;
  }

  it("somebody registers at the service and signs in at the homeserver's address, which says that there are no passwords of its own", async () => {
    await register(browser, "ada", "Ada");
    const flows = (await ask("GET", "/_matrix/client/v3/login")).body.flows as { type: string }[];
    expect(flows.map(({ type }) => type)).toContain("m.login.password");
    const login = await logIn("ada");
    expect(login).toMatchObject({ status: 200, body: { user_id: `@ada:${serverName}` } });
    expect(await whoAmI(login.body.access_token)).toMatchObject({
      status: 200,
      body: { user_id: `@ada:${serverName}` },
    });
    expect((await logIn("ada", {}, "another")).status).toBe(403);
    expect((await ask("GET", "/_matrix/client/v1/auth_metadata")).body.issuer).toBe(`${mas.url}/`);
    const { body } = await ask("POST", "/_matrix/client/v3/register", { body: {} });
    expect(body.errcode).toBe("M_FORBIDDEN");
  });

  it("a client that knows OAuth finds the service by its homeserver, signs in with a code, refreshes its token, and is out at once when it gives it back", async () => {
    const { body: metadata } = await ask("GET", "/_matrix/client/v1/auth_metadata");
    const client_id = await registeredClient();
    const [device, verifier] = ["OAUTHDEVICE", randomBytes(32).toString("base64url")];
    const asked = new URLSearchParams({
      response_type: "code",
      response_mode: "query",
      state: "s",
      client_id,
      redirect_uri: CLIENT,
      scope: SCOPES + device,
      code_challenge_method: "S256",
      code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    });
    const address = await browser.visit(`${metadata.authorization_endpoint}?${asked.toString()}`, {});
    const code = new URL(address).searchParams.get("code")!;
    const signIn = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: CLIENT, client_id };
    const { body: first } = await ask("POST", metadata.token_endpoint, { form: signIn });
    const known = { status: 200, body: { user_id: `@ada:${serverName}`, device_id: device } };
    expect(await whoAmI(first.access_token)).toMatchObject(known);
    const refresh = { grant_type: "refresh_token", refresh_token: first.refresh_token, client_id };
    const { body: second } = await ask("POST", metadata.token_endpoint, { form: refresh });
    expect(await whoAmI(second.access_token)).toMatchObject(known);
    const given = { token: second.access_token, client_id };
    expect((await ask("POST", metadata.revocation_endpoint, { form: given })).status).toBe(200);
    await until("the device is gone", async () => (await whoAmI(second.access_token)).status === 401);
  });

  it("a token is refreshed, and one that is logged out is refused at once", async () => {
    const { body } = await logIn("ada", { refresh_token: true });
    const refreshed = await ask("POST", "/_matrix/client/v3/refresh", { body: { refresh_token: body.refresh_token } });
    expect(refreshed.status).toBe(200);
    const token = refreshed.body.access_token as string;
    expect((await whoAmI(token)).body).toMatchObject({ device_id: body.device_id });
    expect((await ask("POST", "/_matrix/client/v3/logout", { token, body: {} })).status).toBe(200);
    await until("the device is gone", async () => (await whoAmI(token)).status === 401);
    // The service does so for clients that say that they know what it does not end.
    const [other, more] = [
      (await logIn("ada")).body.access_token as string,
      { "io.element.only_compat_is_fine": true },
    ];
    expect((await ask("POST", "/_matrix/client/v3/logout/all", { token: other, body: more })).status).toBe(200);
    await until("that device is gone as well", async () => (await whoAmI(other)).status === 401);
  });

  it("the service is asked about a token once, and once more after a move, in which nothing fails", async () => {
    const token = (await logIn("ada")).body.access_token as string;
    const before = introspections();
    for (let n = 0; n < 3; n += 1) expect((await whoAmI(token)).status).toBe(200);
    expect(introspections() - before).toBe(1);
    const [moved, meanwhile, login] = await Promise.all([cluster.move("clinic"), whoAmI(token), logIn("ada")]);
    expect([moved.failedRequests, meanwhile.status, login.status]).toEqual([0, 200, 200]);
    const after = introspections();
    for (let n = 0; n < 3; n += 1) expect((await whoAmI(token)).status).toBe(200);
    expect(introspections() - after).toBeLessThanOrEqual(1);
  });

  it("a tenant that sleeps is woken by a login, by which the service makes a device, and by a client with a token; asking how to sign in does not", async () => {
    await sleepNow();
    expect((await ask("GET", "/_matrix/client/v3/login")).status).toBe(200);
    expect(await phase()).toBe("Asleep");
    const login = await logIn("ada");
    expect([login.status, await phase()]).toEqual([200, "Running"]);
    await sleepNow();
    expect((await whoAmI(login.body.access_token)).status).toBe(200);
    expect(await phase()).toBe("Running");
    await sleepNow();
    await register(new Browser(), "eve", "Eve");
    expect((await logIn("eve")).status).toBe(200);
  });

  it("somebody signs in with an upstream OpenID provider, from a client that knows no OAuth", async () => {
    const other = new Browser();
    await other.visit(`${mas.url}/upstream/authorize/${PROVIDER_ID}`, {
      login: "dora",
      password: "any",
      display_name: "Dora",
    });
    const redirect = `/_matrix/client/v3/login/sso/redirect?redirectUrl=${encodeURIComponent(CLIENT)}`;
    const address = await other.visit(home + redirect, {});
    const token = new URL(address).searchParams.get("loginToken");
    const login = await ask("POST", "/_matrix/client/v3/login", { body: { type: "m.login.token", token } });
    expect(login).toMatchObject({ status: 200, body: { user_id: `@dora:${serverName}` } });
  });

  it("a device is signed in by another one, as with a QR code: by the device grant, and a rendezvous at the homeserver", async () => {
    const client_id = await registeredClient();
    const device = "QRDEVICE01";
    const asked = await ask("POST", `${mas.url}/oauth2/device`, { form: { client_id, scope: SCOPES + device } });
    expect(asked.status).toBe(200);
    const { device_code, user_code, verification_uri } = asked.body as Record<string, string>;
    await browser.visit(verification_uri!, { code: user_code!, confirm_device: "on" });
    const grant = { grant_type: DEVICE_GRANT, device_code: device_code!, client_id };
    const { status, body } = await ask("POST", `${mas.url}/oauth2/token`, { form: grant });
    expect(status).toBe(200);
    expect((await whoAmI(body.access_token)).body).toMatchObject({ user_id: `@ada:${serverName}`, device_id: device });

    const made = await request(`${home}/_matrix/client/unstable/org.matrix.msc4108/rendezvous`, {
      method: "POST",
      headers: { "content-type": "text/plain" },
      body: "hello",
    });
    expect(made.statusCode).toBe(201);
    const { url } = (await made.body.json()) as { url: string };
    const met = await request(home + new URL(url).pathname);
    expect([met.statusCode, await met.body.text()]).toEqual([200, "hello"]);
  });

  it("while the service is away, clients with a token that is known go on, others are told to come again; when it is back, all do", async () => {
    const [known, unknown] = [(await logIn("ada")).body.access_token, (await logIn("ada")).body.access_token] as [
      string,
      string,
    ];
    expect((await whoAmI(known)).status).toBe(200);
    await mas.stop();
    await toService.cut();
    expect((await whoAmI(known)).status).toBe(200);
    const refused = await whoAmI(unknown);
    expect(refused).toMatchObject({ status: 503, body: { error: "Unable to introspect the access token" } });
    const login = await logIn("ada");
    expect([login.status, login.headers["x-synapse-shards-error"], login.body.errcode]).toEqual([
      503,
      "AuthenticationAway",
      "M_LIMIT_EXCEEDED",
    ]);
    // A tenant starts without it, too.
    await sleepNow();
    expect((await ask("GET", "/_matrix/client/versions")).status).toBe(200);
    await toService.open();
    const ms = await mas.start();
    expect((await whoAmI(unknown)).status).toBe(200);
    expect((await logIn("ada")).status).toBe(200);
    process.stdout.write(
      `the service answers after ${ms.toFixed(0)} ms, and takes ${(await mas.memory()).toFixed(1)} MiB\n`,
    );
  });

  it.runIf(existsSync(SOCKET_ACTIVATE))(
    "where both sleep, a client with a token wakes the tenant, whose question starts the service",
    async () => {
      const token = (await logIn("ada")).body.access_token as string;
      await mas.stop();
      await mas.startOnDemand();
      await sleepNow();
      const begun = performance.now();
      expect((await whoAmI(token)).status).toBe(200);
      process.stdout.write(`both were woken in ${(performance.now() - begun).toFixed(0)} ms\n`);
    },
  );

  it("somebody who is locked at the service is so at the homeserver as soon as that asks again, until it is undone", async () => {
    const token = (await logIn("eve")).body.access_token as string;
    expect((await whoAmI(token)).status).toBe(200);
    await mas.command("manage", "lock-user", "eve");
    expect(await logIn("eve")).toMatchObject({ status: 401, body: { errcode: "M_USER_LOCKED" } });
    // What it remembers is gone, which would be good for two minutes.
    await sleepNow();
    expect((await whoAmI(token)).status).toBe(401);
    await mas.command("manage", "unlock-user", "eve");
    expect((await logIn("eve")).status).toBe(200);
  });

  it("somebody who is deactivated at the service is so at the homeserver, also where that sleeps", async () => {
    const token = (await logIn("eve")).body.access_token as string;
    await sleepNow();
    await mas.command("manage", "lock-user", "eve", "--deactivate");
    await until("she is out", async () => (await whoAmI(token)).status === 401);
    expect((await logIn("eve")).status).toBe(403);
    await until("the homeserver knows", async () => {
      const { stdout } = await cluster.cli("tenant", "users", "list", "clinic", "-o", "json");
      return /"deactivated": true/.test(stdout);
    });
  });

  it("accounts are the service's: the command line makes none in the tenant", async () => {
    const refused = await cluster.cli("tenant", "register-user", "clinic", "--user", "zoe", "--password", PASSWORD);
    expect(refused).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("matrix_authentication_service") as string,
    });
  });
});
