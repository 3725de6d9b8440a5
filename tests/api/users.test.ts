import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startApiUnderTest, type ApiUnderTest } from "./api-under-test.ts";

describe("a tenant's users", () => {
  let api: ApiUnderTest;
  beforeEach(async () => {
    api = await startApiUnderTest();
    api.service.run(api.service.addTenant("clinic-a"), "1.163.2-0");
    const account = { admin: false, deactivated: false, locked: false, appservice: false };
    for (const name of ["ada", "bob"]) api.service.accounts.push({ userId: `@${name}:clinic-a.localhost`, ...account });
  });
  afterEach(() => api.close());

  const post = (path: string, body: object = {}, token?: string) =>
    api.request(`/v1/tenants/clinic-a/users/${path}`, {
      method: "POST",
      body: JSON.stringify(body),
      ...(token === undefined ? {} : { token }),
    });

  test("are listed page by page, for operators", async () => {
    const found = await api.request("/v1/tenants/clinic-a/users?search=bob&limit=1");
    expect(await found.json()).toMatchObject({ items: [{ userId: "@bob:clinic-a.localhost" }], total: 1 });
    const viewer = api.namedTokens.create("vera", "viewer");
    expect((await api.request("/v1/tenants/clinic-a/users", { token: viewer })).status).toBe(403);
    expect((await post("bob/deactivate", {}, viewer)).status).toBe(403);
  });

  test("are changed, and the audit log has who was, without the password", async () => {
    const whole = encodeURIComponent("@bob:clinic-a.localhost");
    expect(await (await post(`${whole}/reset-password`, { password: "s3cret phrase" })).json()).toEqual({
      userId: "@bob:clinic-a.localhost",
      woken: false,
    });
    expect((await post("bob/make-admin", { admin: false })).status).toBe(200);
    expect((await post("bob/deactivate", { erase: true })).status).toBe(200);
    expect(api.service.userChanges.map(({ change }) => change)).toEqual([
      { kind: "password", password: "s3cret phrase", logoutDevices: true },
      { kind: "admin", admin: false },
      { kind: "deactivate", erase: true },
    ]);
    expect(api.audited.map(({ action, path }) => [action, path])).toEqual([
      ["resetPassword", `/v1/tenants/clinic-a/users/${whole}/reset-password`],
      ["makeAdmin", "/v1/tenants/clinic-a/users/bob/make-admin"],
      ["deactivateUser", "/v1/tenants/clinic-a/users/bob/deactivate"],
    ]);
    expect(JSON.stringify(api.audited) + api.logged()).not.toContain("s3cret");
  });

  test.each([
    ["bob/reset-password", {}, 422],
    ["bob/reset-password", { password: "" }, 422],
    ["bob/reset-password", { password: "x".repeat(513) }, 422],
    ["bob/make-admin", { admin: "yes" }, 422],
    ["bob/deactivate", { purge: true }, 422],
    ["nobody/deactivate", {}, 404],
  ])("%s with %j is refused with %3$d", async (path, body, status) => {
    expect((await post(path, body)).status).toBe(status);
    expect(api.service.userChanges).toEqual([]);
  });
});
