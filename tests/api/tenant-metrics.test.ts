import { afterEach, beforeEach, expect, test } from "vitest";
import { type ApiUnderTest, startApiUnderTest } from "./api-under-test.ts";
import { MemoryService } from "./memory-service.ts";

let api: ApiUnderTest;
let service: MemoryService;
let token: string;

beforeEach(async () => {
  service = new MemoryService();
  for (const [name, customer] of [
    ["ours", "us"],
    ["theirs", "them"],
  ] as const)
    service.addTenant(name).spec.labels = { customer };
  api = await startApiUnderTest(service);
  token = api.namedTokens.create("prometheus-us", "tenant-metrics", { tenants: "customer=us" });
});
afterEach(() => api.close());

const ask = async (path: string, init: Parameters<ApiUnderTest["request"]>[1] = {}) => {
  const answer = await api.request(path, { token, ...init });
  return { status: answer.status, type: answer.headers.get("content-type"), text: await answer.text() };
};

test("a customer's Prometheus reads its own tenant's metrics, and meets another's as one that is not there", async () => {
  const { status, type, text } = await ask("/v1/tenants/ours/metrics");
  expect([status, type]).toEqual([200, expect.stringContaining("text/plain; version=0.0.4")]);
  expect(text).toContain('tenant="ours"');
  const theirs = await ask("/v1/tenants/theirs/metrics");
  const nobodys = await ask("/v1/tenants/nobody/metrics");
  expect(theirs.status).toBe(404);
  expect(theirs.text.replaceAll("theirs", "X")).toBe(nobodys.text.replaceAll("nobody", "X"));
  service.tenants.get("ours")!.spec.labels = { customer: "them" };
  expect((await ask("/v1/tenants/ours/metrics")).status).toBe(404);
});

test("its token is good for nothing else, whoever finds it there", async () => {
  const { paths } = (await (await api.request("/v1/openapi.json")).json()) as {
    paths: Record<string, Record<string, { operationId: string; security?: unknown[] }>>;
  };
  let asked = 0;
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { operationId, security }] of Object.entries(methods)) {
      if (security?.length === 0 || ["getTenantMetrics", "whoAmI"].includes(operationId)) continue;
      const body = method === "get" ? {} : { body: "{}" };
      const { status } = await ask(path.replaceAll(/\{\w+\}/g, "ours"), { method: method.toUpperCase(), ...body });
      expect([operationId, status]).toEqual([operationId, /^\/v1\/(routes|gateway\/)/.test(path) ? 401 : 403]);
      asked += 1;
    }
  }
  expect(asked).toBeGreaterThan(50);
});

test("the role needs a selector of tenants", async () => {
  const create = (body: object) =>
    api.request("/v1/tokens", { method: "POST", body: JSON.stringify({ name: "p", role: "tenant-metrics", ...body }) });
  expect((await create({})).status).toBe(422);
  expect((await create({ tenants: "customer=us" })).status).toBe(201);
});
