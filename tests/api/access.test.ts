import { writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Role } from "../../src/model/role.ts";
import { type ApiUnderTest, API_TOKEN, GATEWAY_TOKEN, startApiUnderTest } from "./api-under-test.ts";

let api: ApiUnderTest;
beforeEach(async () => {
  api = await startApiUnderTest();
  await api.request("/v1/tenants", { method: "POST", body: JSON.stringify({ name: "clinic-a" }) });
  api.audited.length = 0;
});
afterEach(() => api.close());

async function tokenOf(role: Role, name: string = role): Promise<string> {
  const answer = await api.request("/v1/tokens", { method: "POST", body: JSON.stringify({ name, role }) });
  expect(answer.status).toBe(201);
  return ((await answer.json()) as { token: string }).token;
}

const post = (body: object = {}) => ({ method: "POST", body: JSON.stringify(body) });

test("each role may do what it is for, and nothing more", async () => {
  const calls: [path: string, init: RequestInit, least: Role][] = [
    ["/v1/tenants", {}, "viewer"],
    ["/v1/status", {}, "viewer"],
    ["/v1/whoami", {}, "viewer"],
    ["/v1/tenants/clinic-a?includeConfig=true", {}, "operator"],
    ["/v1/tenants/clinic-a/logs", {}, "operator"],
    ["/v1/tenants", post({ name: "clinic-x" }), "operator"],
    [
      "/v1/tenants/clinic-a/users",
      post({ username: "ada", password: "long-enough-password", admin: false }),
      "operator",
    ],
    ["/v1/tokens", {}, "admin"],
    ["/v1/tokens", post({ name: "mallory", role: "admin" }), "admin"],
    ["/v1/audit", {}, "admin"],
    ["/v1/shutdown", { method: "POST" }, "admin"],
    ["/v1/tenants/clinic-a", { method: "DELETE" }, "admin"],
  ];
  const order: Role[] = ["viewer", "operator", "admin"];
  for (const role of order) {
    const token = await tokenOf(role);
    for (const [path, init, least] of calls) {
      if (order.indexOf(role) >= order.indexOf(least)) continue;
      const answer = await api.request(path, { ...init, token });
      expect([role, path, answer.status]).toEqual([role, path, 403]);
      const { error } = (await answer.json()) as { error: { code: string; message: string } };
      expect(error.code).toBe("Forbidden");
      expect(error.message).toContain(`needs the role ${least}, and the token ${role} has the role ${role}`);
    }
  }
  expect(api.shutdowns()).toBe(0);
  const admin = await tokenOf("admin", "ada");
  for (const [path, init] of calls) {
    const { status } = await api.request(path, { ...init, token: admin });
    expect([path, status < 400 || status === 409]).toEqual([path, true]);
  }
});

test("every call of the document refuses a token without the role that it needs, before it looks at anything else", async () => {
  const viewer = await tokenOf("viewer");
  const { paths } = (await (await api.request("/v1/openapi.json")).json()) as { paths: Record<string, object> };
  for (const [path, calls] of Object.entries(paths)) {
    // Anybody may sign in, and out.
    if (/^\/v1\/(session|enrolment)/.test(path)) continue;
    for (const method of Object.keys(calls).filter((name) => name !== "get")) {
      const { status } = await api.request(path.replaceAll(/\{\w+\}/g, "clinic-a"), {
        method: method.toUpperCase(),
        token: viewer,
      });
      expect([method, path, status]).toEqual([method, path, path.startsWith("/v1/routes") ? 401 : 403]);
    }
  }
});

test("a token is shown once, works at once, and is useless once it is revoked", async () => {
  const token = await tokenOf("operator", "ada");
  expect(await (await api.request("/v1/whoami", { token })).json()).toEqual({ name: "ada", role: "operator" });
  const listed = await (await api.request("/v1/tokens")).text();
  expect(JSON.parse(listed)).toMatchObject({ items: [{ name: "ada", role: "operator" }] });
  expect(listed).not.toContain(token);
  expect(api.logged()).not.toContain(token);
  expect((await api.request("/v1/tokens", post({ name: "ada", role: "viewer" }))).status).toBe(409);
  expect((await api.request("/v1/tokens/ada", { method: "DELETE" })).status).toBe(204);
  expect((await api.request("/v1/whoami", { token })).status).toBe(401);
  expect((await api.request("/v1/tokens/ada", { method: "DELETE" })).status).toBe(404);
});

test("names that would pass for the owner or a gateway are refused", async () => {
  for (const name of ["owner", "gateway", "", "A", "a/b", "x".repeat(65)])
    expect([name, (await api.request("/v1/tokens", post({ name, role: "viewer" }))).status]).toEqual([name, 422]);
});

test("tokens from before stay good when their file is broken, and its repair counts at once", async () => {
  const token = await tokenOf("viewer", "ada");
  writeFileSync(api.tokensFile, "{");
  expect((await api.request("/v1/whoami", { token })).status).toBe(200);
  expect(api.problems).toHaveLength(1);
  writeFileSync(api.tokensFile, '{"tokens": []}');
  expect((await api.request("/v1/whoami", { token })).status).toBe(401);
});

test("the audit log has who changed what, who was refused, and no secret", async () => {
  const operator = await tokenOf("operator", "ada");
  const password = "a-password-that-nobody-may-read";
  api.audited.length = 0;
  await api.request("/v1/tenants", { token: operator });
  await api.request("/v1/tenants/clinic-a/users", {
    ...post({ username: "bob", password, admin: false }),
    token: operator,
  });
  await api.request("/v1/tenants/clinic-a", { method: "DELETE", token: operator });
  await api.request("/v1/status", { token: "guessed" });
  await api.request("/v1/routes/acks", { ...post({ gateway: "g", version: 1, parks: {} }), token: GATEWAY_TOKEN });
  const text = await (await api.request("/v1/audit?tail=10")).text();
  expect(
    text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as object),
  ).toMatchObject([
    { actor: "ada", role: "operator", action: "registerUser", method: "POST", path: "/v1/tenants/clinic-a/users" },
    { actor: "ada", role: "operator", action: "deleteTenant", status: 403 },
    { actor: null, role: null, action: "getStatus", status: 401, client: "127.0.0.1" },
  ]);
  for (const secret of [password, operator, API_TOKEN, "guessed"]) expect(text).not.toContain(secret);
});

test("metrics need a token where the cluster says so", async () => {
  expect((await api.request("/metrics", { token: null })).status).toBe(200);
  const closed = await startApiUnderTest(undefined, { metricsNeedToken: true });
  expect((await closed.request("/metrics", { token: null })).status).toBe(401);
  expect((await closed.request("/metrics", { token: GATEWAY_TOKEN })).status).toBe(401);
  const viewer = closed.namedTokens.create("prometheus", "viewer");
  expect((await closed.request("/metrics", { token: viewer })).status).toBe(200);
  await closed.close();
});

test("the audit log has what a request changed, and whether the log is whole", async () => {
  api.audited.length = 0;
  const body = JSON.stringify({ name: "audited", config: "max_upload_size: 5M\nturn_shared_secret: hunter2\n" });
  expect((await api.request("/v1/tenants", { method: "POST", body })).status).toBe(201);
  const patch = JSON.stringify({ release: "1.164.0", config: "max_upload_size: 7M\nturn_shared_secret: hunter3\n" });
  expect((await api.request("/v1/tenants/audited", { method: "PATCH", body: patch })).status).toBe(200);
  expect((await api.request("/v1/tenants/audited", { method: "PATCH", body: "{}" })).status).toBe(422);
  await expect.poll(() => api.audited.length).toBe(3);
  const [made, changed, refused] = api.audited;
  expect(made?.changes).toContainEqual({ field: "name", before: null, after: "audited" });
  expect(changed?.changes).toEqual([
    { field: "config.max_upload_size", before: "5M", after: "7M" },
    { field: "config.turn_shared_secret", before: "(hidden)", after: "(hidden)" },
    { field: "release", before: expect.any(String), after: "1.164.0" },
  ]);
  expect(refused?.changes).toBeUndefined();
  expect(JSON.stringify(api.audited)).not.toContain("hunter");
  expect(await (await api.request("/v1/audit/verification")).json()).toMatchObject({
    entries: 3,
    unchained: 3,
    breaks: [],
  });
});
