import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { UserError, type ErrorCode } from "../../src/model/errors.ts";
import { type ApiUnderTest, GATEWAY_TOKEN, startApiUnderTest } from "./api-under-test.ts";

let api: ApiUnderTest;
beforeEach(async () => void (api = await startApiUnderTest()));
afterEach(() => api.close());

interface Answer {
  status: number;
  error: { code: string; message: string; details?: unknown };
}

async function send(method: string, path: string, body?: unknown): Promise<Answer> {
  const response = await api.request(path, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  return { status: response.status, ...((await response.json()) as Omit<Answer, "status">) };
}

async function problemsOf(method: string, path: string, body?: unknown): Promise<unknown> {
  const { status, error } = await send(method, path, body);
  expect([status, error.code]).toEqual([422, "InvalidInput"]);
  return error.details;
}

test("labels select tenants; wrong ones, and wrong selectors, are refused with the part that is wrong", async () => {
  await send("POST", "/v1/tenants", { name: "a", labels: { plan: "small" } });
  await send("POST", "/v1/tenants", { name: "b", labels: { plan: "large" } });
  const namesOf = async (selector: string) => {
    const response = await api.request(`/v1/tenants?selector=${encodeURIComponent(selector)}`);
    const { items } = (await response.json()) as { items: { metadata: { name: string } }[] };
    return items.map(({ metadata }) => metadata.name);
  };
  expect(await namesOf("plan=small")).toEqual(["a"]);
  expect(await namesOf("plan!=small")).toEqual(["b"]);
  await send("PATCH", "/v1/tenants/a", { labels: { plan: null, paid: "no" } });
  expect(await namesOf("!plan,paid=no")).toEqual(["a"]);
  expect(await send("GET", "/v1/tenants?selector=plan%3Da%3Db")).toMatchObject({
    status: 422,
    error: { code: "InvalidInput", message: expect.stringContaining('selector, part "plan=a=b"') },
  });
  expect(await problemsOf("PATCH", "/v1/tenants/a", { labels: { "not a key": "" } })).toEqual([
    expect.stringContaining('labels: "not a key" is no key of a label'),
  ]);
});

describe("wrong requests", () => {
  test("errors name the path, what was given and what is allowed", async () => {
    expect(await problemsOf("POST", "/v1/tenants", { name: "A_b", serverName: "a b", release: "latest", color: 1 }))
      .toMatchInlineSnapshot(`
        [
          "name: tenant name "A_b" is not a DNS label: 1 to 63 of a-z, 0-9 and "-", not beginning or ending with "-"",
          "serverName: server name "a b" has the part "a b", which is not a DNS label",
          "release: a release of matrix-synapse such as 1.163.2, or "fleet", but "latest" was given",
          "color: no such setting; allowed are name, serverName, domain, host, release, config, hibernation, placement, isolation, labels, plan, quotas, authenticationService, fromTemplate",
        ]
      `);
    expect(await problemsOf("POST", "/v1/tenants", {})).toMatchInlineSnapshot(`
      [
        "name: expected string",
      ]
    `);
    expect(await problemsOf("POST", "/v1/tenants")).toMatchInlineSnapshot(`
      [
        "expected object",
      ]
    `);
    const placement = { shard: "somewhere", spreadFrom: ["A_b"], doNotMoveUntil: "tomorrow", near: "b" };
    expect(await problemsOf("PATCH", "/v1/tenants/a", { placement })).toMatchInlineSnapshot(`
      [
        "placement.shard: a shard's name such as 1.163.2-0, but "somewhere" was given",
        "placement.spreadFrom.0: tenant name "A_b" is not a DNS label: 1 to 63 of a-z, 0-9 and "-", not beginning or ending with "-"",
        "placement.doNotMoveUntil: Invalid ISO datetime, but "tomorrow" was given",
        "placement.near: no such setting; allowed are shard, isolate, spreadFrom, doNotMoveUntil",
      ]
    `);
    expect(await problemsOf("PATCH", "/v1/tenants/a", {})).toMatchInlineSnapshot(`
      [
        "give release, config, hibernation, placement, isolation, labels, plan, quotas, metrics, authenticationService or revertConfig",
      ]
    `);
    expect(await problemsOf("PATCH", "/v1/tenants/a", { serverName: "b" })).toMatchInlineSnapshot(`
      [
        "serverName: no such setting; allowed are release, config, hibernation, placement, isolation, labels, plan, quotas, metrics, authenticationService, revertConfig",
        "give release, config, hibernation, placement, isolation, labels, plan, quotas, metrics, authenticationService or revertConfig",
      ]
    `);
    expect(await problemsOf("POST", "/v1/tenants/a/move", { to: 7 })).toMatchInlineSnapshot(`
      [
        "to: expected string, but 7 was given",
      ]
    `);
    expect(await problemsOf("GET", "/v1/tenants/a/logs?tail=-1&follow=maybe")).toMatchInlineSnapshot(`
      [
        "tail: a whole number from 0 to 100000, but "-1" was given",
        "follow: Invalid option: expected one of "true"|"false", but "maybe" was given",
      ]
    `);
    expect(await problemsOf("DELETE", "/v1/tenants/a?purge=yes")).toMatchInlineSnapshot(`
      [
        "purge: Invalid option: expected one of "true"|"false", but "yes" was given",
      ]
    `);
    expect(await problemsOf("GET", "/v1/events?object=clinic-a")).toMatchInlineSnapshot(`
      [
        "object: Tenant/NAME, Shard/NAME or Fleet/fleet, but "clinic-a" was given",
      ]
    `);
    expect(await problemsOf("POST", "/v1/tenants/a/users", { username: "_Bob", password: "", admin: "yes" }))
      .toMatchInlineSnapshot(`
        [
          "username: the part before the colon of a user id: a-z, 0-9 and ._=/+-, not beginning with "_", but "_Bob" was given",
          "password: a password of at least one character",
          "admin: expected boolean, but "yes" was given",
        ]
      `);
  });

  test("errors repeat no password and no configuration", async () => {
    const secret = "correct-horse";
    const answers = [
      await send("POST", "/v1/tenants/a/users", { username: "bob", password: [secret] }),
      await send("POST", "/v1/tenants/a/users", { username: "bob", password: secret.repeat(60) }),
      await send("POST", "/v1/tenants/a/users", secret),
      await send("POST", "/v1/tenants/a/users", [secret]),
      await send("POST", "/v1/tenants", { name: "a", config: { database: { args: { password: secret } } } }),
    ];
    const raw = await api.request("/v1/tenants/a/users", { method: "POST", body: `{"password": "${secret}` });
    answers.push({ status: raw.status, ...((await raw.json()) as Omit<Answer, "status">) });
    expect(answers.map(({ status }) => status)).toEqual([422, 422, 422, 422, 422, 400]);
    expect(JSON.stringify(answers)).not.toContain(secret);
    expect(api.logged()).not.toContain(secret);
  });

  test("refuses bodies that are too large or not JSON", async () => {
    const huge = await send("POST", "/v1/tenants", { name: "a", config: "x".repeat(1024 * 1024) });
    expect([huge.status, huge.error]).toEqual([
      413,
      { code: "TooLarge", message: "the request's body is larger than 1 MiB" },
    ]);
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const form = await api.request("/v1/tenants", { method: "POST", headers, body: "name=a" });
    expect(form.status).toBe(415);
    expect(api.service.tenants.size).toBe(0);
  });
});

describe("bodies that are not needed", () => {
  const empty = async (method: string, path: string, type: string) =>
    (await api.request(path, { method, headers: { "content-type": type }, body: "" })).status;

  test("accepts an empty body of any type where none is needed", async () => {
    api.service.addShard("1.163.2-0");
    api.service.addShard("1.163.2-1");
    api.service.run(api.service.addTenant("a"), "1.163.2-0");
    for (const type of [
      "application/json",
      "application/json; charset=utf-8",
      "text/plain",
      "application/x-www-form-urlencoded",
    ])
      expect(await empty("POST", "/v1/tenants/a/move", type), type).toBe(202);
    expect(await empty("POST", "/v1/shards/1.163.2-0/drain", "application/json")).toBe(202);
    expect(await empty("DELETE", "/v1/tenants/a", "application/json")).toBe(202);
  });

  test("says what is missing where one is needed", async () => {
    expect(await empty("POST", "/v1/tenants", "application/json")).toBe(422);
    expect(await empty("PATCH", "/v1/tenants/a", "text/plain")).toBe(422);
  });
});

test("answers 202 for a tenant whose release is still to be installed, and says so in its reason", async () => {
  api.service.onCreate = () => {};
  api.service.newTenantReason = "InstallingRelease";
  const created = await api.request("/v1/tenants", {
    method: "POST",
    body: JSON.stringify({ name: "a", release: "1.164.0" }),
  });
  expect([created.status, ((await created.json()) as { status: object }).status]).toMatchObject([
    202,
    { phase: "Pending", reason: "InstallingRelease" },
  ]);
});

test("tells in one field whether a change is in effect", async () => {
  const tenant = api.service.addTenant("a");
  api.service.run(tenant, "1.163.2-0");
  const change = async () =>
    ((await (await api.request("/v1/tenants/a")).json()) as { change: { state: string; reason: string } }).change;
  expect(await change()).toEqual({ state: "InEffect", reason: "", message: "" });
  tenant.metadata.generation += 1;
  expect(await change()).toMatchObject({ state: "Pending" });
  tenant.status.observedGeneration = tenant.metadata.generation;
  tenant.status.refusedConfig = { hash: "x", reason: "OptionNotAllowed", message: "daemonize: not allowed" };
  expect(await change()).toEqual({ state: "Refused", reason: "OptionNotAllowed", message: "daemonize: not allowed" });
});

describe("failures of the service", () => {
  const STATUS: Record<ErrorCode, number> = {
    NotFound: 404,
    AlreadyExists: 409,
    Conflict: 409,
    NoPlace: 409,
    SchemaTooNew: 409,
    InvalidInput: 422,
    InvalidConfig: 422,
    UnknownRelease: 422,
    UnsupportedRelease: 422,
    Unauthorized: 401,
    Forbidden: 403,
    RateLimited: 429,
    Unavailable: 503,
    Timeout: 504,
    Environment: 500,
  };

  test("tells users' mistakes from bugs", async () => {
    for (const [code, status] of Object.entries(STATUS)) {
      api.service.failure = new UserError(code as ErrorCode, `words of ${code}`);
      expect(await send("GET", "/v1/status")).toEqual({ status, error: { code, message: `words of ${code}` } });
    }
  });

  test("an answer to a bug has an id for the log, and no internals", async () => {
    api.service.failure = new TypeError("connection to postgres://u:secret@db failed");
    const { status, error } = await send("GET", "/v1/tenants");
    expect([status, error.code]).toEqual([500, "InternalError"]);
    expect(JSON.stringify(error)).not.toMatch(/postgres|secret|TypeError|at /);
    const { errorId } = error.details as { errorId: string };
    expect(error.message).toContain(errorId);
    const line = api
      .logged()
      .split("\n")
      .find((text) => text.includes(errorId));
    expect(line).toContain("connection to postgres");
  });
});

describe("tenants", () => {
  test("lists of tenants show no configuration", async () => {
    const config = "database: {args: {password: hunter2}}";
    const created = await api.request("/v1/tenants", {
      method: "POST",
      body: JSON.stringify({ name: "clinic-a", config }),
    });
    expect(created.status).toBe(201);
    const answers = [
      await created.text(),
      await (await api.request("/v1/tenants")).text(),
      await (await api.request("/v1/tenants/clinic-a")).text(),
      await (
        await api.request("/v1/tenants/clinic-a", {
          method: "PATCH",
          body: JSON.stringify({ release: "1.157.2" }),
        })
      ).text(),
      await (await api.request("/v1/tenants/clinic-a", { method: "DELETE" })).text(),
    ];
    for (const text of answers) {
      expect(text).toContain('"hasConfig":true');
      expect(text).not.toContain("hunter2");
    }
  });

  test("shows a tenant's configuration when asked", async () => {
    api.service.addTenant("clinic-a", {}, "allow_guest_access: true");
    const shown = (await (await api.request("/v1/tenants/clinic-a?includeConfig=true")).json()) as { spec: unknown };
    expect(shown.spec).toMatchObject({ config: "allow_guest_access: true" });
  });

  test("passes on purge only when asked", async () => {
    for (const [query, reclaimPolicy] of [
      ["", "Retain"],
      ["?purge=false", "Retain"],
      ["?purge=true", "Delete"],
    ]) {
      api.service.addTenant("clinic-a");
      const answer = await api.request(`/v1/tenants/clinic-a${query}`, { method: "DELETE" });
      expect(answer.status).toBe(202);
      expect(await answer.json()).toMatchObject({ spec: { reclaimPolicy } });
    }
  });

  test("names with special characters reach no other route or object", async () => {
    const { status, error } = await send("GET", `/v1/tenants/${encodeURIComponent("../shards")}`);
    expect([status, error.message]).toEqual([404, "there is no tenant ../shards"]);
  });

  test("takes a move without a body", async () => {
    api.service.addShard("1.163.2-0");
    api.service.addShard("1.163.2-1");
    api.service.run(api.service.addTenant("clinic-a"), "1.163.2-0");
    const answer = await api.request("/v1/tenants/clinic-a/move", { method: "POST" });
    expect([answer.status, await answer.json()]).toMatchObject([
      202,
      { id: "move-1", from: "1.163.2-0", to: "1.163.2-1" },
    ]);
  });
});

test("shows a shard that is being drained as Draining", async () => {
  api.service.addShard("1.163.2-0").spec.drain = "Consolidation";
  api.service.addShard("1.163.2-1", { phase: "Lost" }).spec.drain = "Requested";
  api.service.addShard("1.163.2-2");
  const { items } = (await (await api.request("/v1/shards")).json()) as { items: { status: { phase: string } }[] };
  expect(items.map(({ status }) => status.phase)).toEqual(["Draining", "Lost", "Ready"]);
  const drained = await api.request("/v1/shards/1.163.2-2/drain", { method: "POST" });
  expect([drained.status, await drained.json()]).toMatchObject([202, { status: { phase: "Draining" } }]);
});

test("shuts down once the answer is out", async () => {
  const answer = await api.request("/v1/shutdown", { method: "POST" });
  expect([answer.status, await answer.json(), api.shutdowns()]).toEqual([202, { stopping: true }, 1]);
});

describe("sleep and wakes", () => {
  const call = async (method: string, path: string, { token, body }: { token?: string; body?: unknown } = {}) => {
    const response = await api.request(path, {
      method,
      ...(token ? { token } : {}),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: text === "" ? undefined : (JSON.parse(text) as Record<string, unknown>) };
  };

  test("a tenant is put to sleep and woken, and says how it rests", async () => {
    api.service.addShard("1.163.2-0");
    api.service.run(api.service.addTenant("a"), "1.163.2-0");
    expect(await call("GET", "/v1/tenants/a/rest")).toEqual({
      status: 200,
      body: { keepsAwake: [], unusedSeconds: 12 },
    });
    api.service.keepsAwake = ["2 of its requests are open"];
    expect(await call("POST", "/v1/tenants/a/sleep")).toMatchObject({
      status: 409,
      body: { error: { code: "Conflict", message: "a cannot sleep now: 2 of its requests are open" } },
    });
    expect((await call("GET", "/v1/tenants/a/rest")).body).toMatchObject({
      keepsAwake: ["2 of its requests are open"],
    });
    api.service.keepsAwake = [];
    expect(await call("POST", "/v1/tenants/a/sleep")).toMatchObject({
      status: 202,
      body: { status: { phase: "Asleep", sleep: { reason: "Requested" } } },
    });
    expect(await call("POST", "/v1/tenants/a/wake")).toMatchObject({
      status: 202,
      body: { status: { phase: "Running" } },
    });
    for (const verb of ["sleep", "wake"])
      expect(await call("POST", `/v1/tenants/nobody/${verb}`)).toMatchObject({ status: 404 });
    expect(await call("GET", "/v1/tenants/nobody/rest")).toMatchObject({ status: 404 });
  });

  test("a gateway's wakes arrive, with a reason of a later version as a request's; wrong ones are refused", async () => {
    const wakes = (body: unknown) => call("POST", "/v1/routes/wakes", { token: GATEWAY_TOKEN, body });
    const tenants = [
      { tenant: "a", why: "poll" },
      { tenant: "b", why: "a reason to come" },
    ];
    expect(await wakes({ gateway: "g", tenants })).toEqual({ status: 202, body: undefined });
    expect(api.service.wakes).toEqual([
      { tenant: "a", reason: "poll" },
      { tenant: "b", reason: "request" },
    ]);
    expect(await wakes({ gateway: "g", tenants: [{ tenant: "", why: "poll" }] })).toMatchObject({
      status: 422,
      body: { error: { details: [expect.stringMatching(/^tenants\.0\.tenant/)] } },
    });
    const tooMany = Array.from({ length: 100_000 }, () => ({ tenant: "a", why: "poll" }));
    expect((await wakes({ gateway: "g", tenants: tooMany })).status).toBeGreaterThanOrEqual(400);
    expect(api.service.wakes).toHaveLength(2);
  });
});
