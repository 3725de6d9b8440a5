import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AdminAccessConfigSchema } from "../../src/model/admin-access.ts";
import { startApiUnderTest, type ApiUnderTest } from "./api-under-test.ts";
import { ADMIN_TOKEN } from "./memory-service.ts";

const ACCOUNT = { admin: true, deactivated: false, locked: false, appservice: false };

describe("the entrance for a tenant's administrators", () => {
  let api: ApiUnderTest;
  beforeEach(async () => {
    api = await startApiUnderTest();
    for (const [name, customer] of [
      ["ours", "us"],
      ["theirs", "them"],
    ] as const) {
      api.service.addTenant(name).spec.labels = { customer };
      api.service.run(api.service.tenants.get(name)!, "1.163.2-0");
    }
    allow(false);
  });
  afterEach(() => api.close());

  function allow(tenantAdmins: boolean): void {
    api.service.adminEntrance = { ...AdminAccessConfigSchema.parse({ tenantAdmins })!, listensAt: 8449 };
  }

  const call = (method: string, name = "ours", { body, token }: { body?: object; token?: string } = {}) =>
    api.request(`/v1/tenants/${name}/admin-access`, {
      method,
      ...(body ? { body: JSON.stringify(body) } : {}),
      ...(token === undefined ? {} : { token }),
    });
  const openFor = async (name = "ours") => (await (await call("GET", name)).json()) as object;

  test("is opened and closed, and the audit log has who did it and what changed", async () => {
    expect(await openFor()).toMatchObject({ open: false });
    const opened = await call("PUT", "ours", { body: { allowedNetworks: ["10.0.0.0/8"] } });
    expect(await opened.json()).toMatchObject({ open: true, address: "https://ours.localhost:8449" });
    expect(await (await call("DELETE")).json()).toMatchObject({ open: false });
    await expect.poll(() => api.audited.length).toBe(2);
    const access = { allowedNetworks: ["10.0.0.0/8"] };
    expect(api.audited).toMatchObject([
      { action: "openAdminAccess", changes: [{ field: "adminAccess", before: null, after: access }] },
      { action: "closeAdminAccess", changes: [{ field: "adminAccess", before: access, after: null }] },
    ]);
  });

  test("is for operators to open and to close, and for viewers to see", async () => {
    const token = api.namedTokens.create("vera", "viewer");
    expect((await call("GET", "ours", { token })).status).toBe(200);
    expect((await call("PUT", "ours", { body: {}, token })).status).toBe(403);
    expect((await call("DELETE", "ours", { token })).status).toBe(403);
    const operator = api.namedTokens.create("olga", "operator");
    expect((await call("PUT", "ours", { body: {}, token: operator })).status).toBe(200);
  });

  test("is a tenant admin's only where the operator allows it, and of their tenants alone", async () => {
    const token = api.namedTokens.create("reseller", "tenant-admin", { tenants: "customer=us" });
    for (const [method, body] of [
      ["PUT", {}],
      ["DELETE", undefined],
    ] as const) {
      const refused = await call(method, "ours", { ...(body ? { body } : {}), token });
      expect([refused.status, await refused.text()]).toEqual([403, expect.stringContaining("operator's to say")]);
    }
    expect(await openFor()).toMatchObject({ open: false });
    allow(true);
    expect((await call("PUT", "ours", { body: {}, token })).status).toBe(200);
    expect((await call("PUT", "theirs", { body: {}, token })).status).toBe(404);
    expect((await call("GET", "theirs", { token })).status).toBe(404);
    expect(await openFor("theirs")).toMatchObject({ open: false });
    expect((await call("DELETE", "ours", { token })).status).toBe(200);
  });

  test("signs in as an administrator where it is open, with a token that is in no log", async () => {
    api.service.accounts.push({ userId: "@ada:ours.localhost", ...ACCOUNT });
    const signIn = (token?: string, name = "ours") =>
      api.request(`/v1/tenants/${name}/users/ada/admin-session`, { method: "POST", ...(token ? { token } : {}) });
    expect((await signIn()).status).toBe(409);
    await call("PUT", "ours", { body: {} });
    const answer = await signIn();
    expect([answer.status, answer.headers.get("cache-control")]).toEqual([200, "no-store"]);
    expect(await answer.json()).toMatchObject({ userId: "@ada:ours.localhost", token: ADMIN_TOKEN });
    await expect.poll(() => api.audited.at(-1)?.action).toBe("openAdminSession");
    expect(api.audited.at(-1)!.path).toBe("/v1/tenants/ours/users/ada/admin-session");
    expect(JSON.stringify(api.audited)).not.toContain(ADMIN_TOKEN);
    // Nobody is an administrator by being a viewer, nor a tenant admin where that is the operator's to say.
    expect((await signIn(api.namedTokens.create("vera", "viewer"))).status).toBe(403);
    const reseller = api.namedTokens.create("reseller", "tenant-admin", { tenants: "customer=us" });
    expect((await signIn(reseller)).status).toBe(403);
    allow(true);
    expect((await signIn(reseller)).status).toBe(200);
    expect((await signIn(reseller, "theirs")).status).toBe(404);
  });

  test.each([
    ["a network with a wrong prefix", { allowedNetworks: ["10.0.0.0/33"] }],
    ["no list", { allowedNetworks: "10.0.0.0/8" }],
    ["more than 100", { allowedNetworks: Array.from({ length: 101 }, () => "10.0.0.0/8") }],
    ["what it does not know", { host: "admin.example" }],
  ])("refuses %s by name", async (_what, body) => {
    const refused = await call("PUT", "ours", { body });
    expect([refused.status, await refused.text()]).toEqual([422, expect.stringContaining(Object.keys(body)[0]!)]);
  });

  test("cannot be opened by a change of the tenant's other wishes", async () => {
    const body = JSON.stringify({ adminAccess: { allowedNetworks: [] } });
    expect((await api.request("/v1/tenants/ours", { method: "PATCH", body })).status).toBe(422);
    expect(await openFor()).toMatchObject({ open: false });
  });
});
