import { Ajv2020, type AnySchema } from "ajv/dist/2020.js";
import { afterEach, beforeEach, expect, expectTypeOf, test } from "vitest";
import type { z } from "zod";
import type { MoveResultSchema, MoveSchema, ShardSchema, StatusSchema, TenantSchema } from "../../src/api/schemas.ts";
import type { ShardView, TenantView } from "../../src/api/views.ts";
import type { ClusterStatus } from "../../src/controller/service/cluster-service.ts";
import type { Move, MoveResult } from "../../src/model/move.ts";
import { type ApiUnderTest, startApiUnderTest } from "./api-under-test.ts";

interface Operation {
  operationId?: string;
  summary?: string;
  responses: Record<string, { description: string; content?: Record<string, { schema: AnySchema }> }>;
}

interface OpenApi {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, AnySchema> };
}

let api: ApiUnderTest;
let document: OpenApi;
beforeEach(async () => {
  api = await startApiUnderTest();
  document = (await (await api.request("/v1/openapi.json")).json()) as OpenApi;
});
afterEach(() => api.close());

function operations(): [id: string, operation: Operation][] {
  return Object.entries(document.paths).flatMap(([path, calls]) =>
    Object.entries(calls).map(([method, operation]): [string, Operation] => [
      `${method.toUpperCase()} ${path}`,
      operation,
    ]),
  );
}

/** Refuses what does not fit the document's schema for an answer. */
function checkerOf(call: string, status: string): (value: unknown) => void {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  ajv.addSchema({ $id: "doc", ...document });
  const operation = new Map(operations()).get(call);
  const schema = operation?.responses[status]?.content?.["application/json"]?.schema;
  if (schema === undefined) throw new Error(`the document has no answer ${status} of ${call}`);
  const absolute = JSON.parse(JSON.stringify(schema).replaceAll('"#/components/', '"doc#/components/')) as AnySchema;
  const validate = ajv.compile(absolute);
  return (value) => {
    if (!validate(value)) throw new Error(`the answer of ${call} does not fit: ${ajv.errorsText(validate.errors)}`);
  };
}

test("documents every call", () => {
  expect(document.openapi).toBe("3.1.0");
  expect(
    operations()
      .map(([call]) => call)
      .toSorted(),
  ).toMatchInlineSnapshot(`
    [
      "DELETE /v1/accounts/{name}",
      "DELETE /v1/deleted-tenants/{name}",
      "DELETE /v1/session",
      "DELETE /v1/tenants/{name}",
      "DELETE /v1/tenants/{name}/admin-access",
      "DELETE /v1/tenants/{name}/inspection",
      "DELETE /v1/tenants/{name}/move-database",
      "DELETE /v1/tenants/{name}/quarantine",
      "DELETE /v1/tenants/{name}/restore",
      "DELETE /v1/tokens/{name}",
      "GET /healthz",
      "GET /metrics",
      "GET /v1/accounts",
      "GET /v1/audit",
      "GET /v1/audit/verification",
      "GET /v1/backups",
      "GET /v1/backups/point-in-time",
      "GET /v1/certificates",
      "GET /v1/database-servers",
      "GET /v1/deleted-tenants",
      "GET /v1/events",
      "GET /v1/fleet",
      "GET /v1/gateway/certificates",
      "GET /v1/history",
      "GET /v1/inspections",
      "GET /v1/jobs",
      "GET /v1/jobs/{id}",
      "GET /v1/notifications",
      "GET /v1/openapi.json",
      "GET /v1/plans",
      "GET /v1/problems",
      "GET /v1/purges",
      "GET /v1/routes",
      "GET /v1/session/methods",
      "GET /v1/session/oidc",
      "GET /v1/session/oidc/callback",
      "GET /v1/shards",
      "GET /v1/shards/{name}",
      "GET /v1/shards/{name}/logs",
      "GET /v1/status",
      "GET /v1/tenants",
      "GET /v1/tenants/{name}",
      "GET /v1/tenants/{name}/admin-access",
      "GET /v1/tenants/{name}/backups",
      "GET /v1/tenants/{name}/check",
      "GET /v1/tenants/{name}/dns",
      "GET /v1/tenants/{name}/inspection",
      "GET /v1/tenants/{name}/logs",
      "GET /v1/tenants/{name}/metrics",
      "GET /v1/tenants/{name}/quotas",
      "GET /v1/tenants/{name}/rest",
      "GET /v1/tenants/{name}/usage",
      "GET /v1/tenants/{name}/users",
      "GET /v1/tokens",
      "GET /v1/usage",
      "GET /v1/watch/tenants",
      "GET /v1/whoami",
      "PATCH /v1/fleet",
      "PATCH /v1/tenants/{name}",
      "POST /v1/accounts",
      "POST /v1/accounts/{name}/reset",
      "POST /v1/certificates/{name}/renew",
      "POST /v1/deleted-tenants/{name}/undelete",
      "POST /v1/enrolment",
      "POST /v1/enrolment/passkey",
      "POST /v1/enrolment/password",
      "POST /v1/fleet/rollback",
      "POST /v1/notifications/test",
      "POST /v1/routes/acks",
      "POST /v1/routes/requests",
      "POST /v1/routes/wakes",
      "POST /v1/session",
      "POST /v1/session/passkey",
      "POST /v1/session/passkey/options",
      "POST /v1/session/password",
      "POST /v1/shards/{name}/drain",
      "POST /v1/shutdown",
      "POST /v1/tenants",
      "POST /v1/tenants/{name}/app-services/{id}/ping",
      "POST /v1/tenants/{name}/backups",
      "POST /v1/tenants/{name}/backups/verify",
      "POST /v1/tenants/{name}/config/check",
      "POST /v1/tenants/{name}/export",
      "POST /v1/tenants/{name}/import",
      "POST /v1/tenants/{name}/inspection",
      "POST /v1/tenants/{name}/inspection/login",
      "POST /v1/tenants/{name}/move",
      "POST /v1/tenants/{name}/move-database",
      "POST /v1/tenants/{name}/rename",
      "POST /v1/tenants/{name}/restore",
      "POST /v1/tenants/{name}/restore/undo",
      "POST /v1/tenants/{name}/resume",
      "POST /v1/tenants/{name}/sleep",
      "POST /v1/tenants/{name}/suspend",
      "POST /v1/tenants/{name}/users",
      "POST /v1/tenants/{name}/users/{user}/admin-session",
      "POST /v1/tenants/{name}/users/{user}/deactivate",
      "POST /v1/tenants/{name}/users/{user}/make-admin",
      "POST /v1/tenants/{name}/users/{user}/reset-password",
      "POST /v1/tenants/{name}/wake",
      "POST /v1/tokens",
      "PUT /v1/tenants/{name}/admin-access",
      "PUT /v1/tenants/{name}/quarantine",
    ]
  `);
});

test("every call has a summary, a name, and its failures", () => {
  const ids = operations().map(([, { operationId }]) => operationId);
  expect(new Set(ids).size).toBe(ids.length);
  for (const [call, { operationId, summary, responses }] of operations()) {
    expect([call, operationId, summary]).toEqual([
      call,
      expect.stringMatching(/^[a-z][A-Za-z]+$/),
      expect.stringMatching(/^[A-Z]/),
    ]);
    for (const [status, { description }] of Object.entries(responses)) {
      expect([call, status, description]).not.toEqual([call, status, "Default Response"]);
    }
    const open = /healthz| \/metrics$/.test(call);
    expect([call, "401" in responses]).toEqual([call, !open]);
  }
});

test("the document is valid OpenAPI without dangling references", () => {
  const text = JSON.stringify(document);
  for (const [, reference = ""] of text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)) {
    expect(Object.keys(document.components.schemas)).toContain(reference);
  }
  const ajv = new Ajv2020({ strict: false });
  ajv.addSchema({ $id: "doc", ...document });
  for (const name of Object.keys(document.components.schemas)) {
    expect([name, ajv.validateSchema(document.components.schemas[name]!)]).toEqual([name, true]);
    expect([name, typeof ajv.getSchema(`doc#/components/schemas/${name}`)]).toEqual([name, "function"]);
  }
  expect(text).not.toContain("~standard");
});

test("answers fit the document", async () => {
  const { service } = api;
  service.addShard("1.163.2-0");
  service.addShard("1.163.2-1").spec.drain = "Requested";
  service.run(service.addTenant("clinic-a"), "1.163.2-0");
  await service.moveTenant("clinic-a", { to: "1.163.2-1" });
  service.fail(service.addTenant("clinic-b"), "InvalidConfig", "broken");
  const get = async (path: string) => (await api.request(path)).json();
  for (const [call, path] of [
    ["GET /v1/tenants", "/v1/tenants"],
    ["GET /v1/tenants/{name}", "/v1/tenants/clinic-a?includeConfig=true"],
    ["GET /v1/shards", "/v1/shards"],
    ["GET /v1/shards/{name}", "/v1/shards/1.163.2-1"],
    ["GET /v1/status", "/v1/status"],
  ] as const) {
    checkerOf(call, "200")(await get(path));
  }
  for (const name of ["clinic-c", "clinic-d"]) {
    service.addTenant(name, {}, "secret: 1");
    await service.deleteTenant(name, { purge: false });
  }
  const kept = await get("/v1/deleted-tenants");
  checkerOf("GET /v1/deleted-tenants", "200")(kept);
  expect(JSON.stringify(kept)).not.toContain("secret: 1");
  const purge = await api.request("/v1/deleted-tenants/clinic-c", { method: "DELETE" });
  checkerOf("DELETE /v1/deleted-tenants/{name}", "200")(await purge.json());
  checkerOf("GET /v1/purges", "200")(await get("/v1/purges?limit=5"));
  const updatedAt = "2026-01-02T00:00:00.000Z";
  const row = {
    tenant: "clinic-a",
    serverName: "a.example",
    month: "2026-01",
    cpuSeconds: 1.5,
    requests: 2,
    updatedAt,
  };
  service.usage.push(row, { ...row, month: "2026-02", users: 3 });
  const usage = await get("/v1/usage?tenant=clinic-a&month=2026-02");
  checkerOf("GET /v1/usage", "200")(usage);
  expect(usage).toEqual({ items: [{ ...row, month: "2026-02", users: 3 }] });
  checkerOf("GET /v1/usage", "422")(await get("/v1/usage?month=2026-13"));
  service.plans.push({ name: "small", quotas: { users: 50, soft: { mediaBytes: 10 } }, tenants: 1 });
  checkerOf("GET /v1/notifications", "200")(await get("/v1/notifications"));
  const tested = await api.request("/v1/notifications/test", { method: "POST" });
  checkerOf("POST /v1/notifications/test", "200")(await tested.json());
  checkerOf("GET /v1/plans", "200")(await get("/v1/plans"));
  checkerOf("GET /v1/tenants/{name}/quotas", "200")(await get("/v1/tenants/clinic-a/quotas"));
  const back = await api.request("/v1/deleted-tenants/clinic-d/undelete", { method: "POST" });
  expect(back.status).toBe(202);
  checkerOf("POST /v1/deleted-tenants/{name}/undelete", "202")(await back.json());
  checkerOf("GET /v1/tenants/{name}", "404")(await get("/v1/tenants/nobody"));
  // That the check itself can fail:
  expect(() => checkerOf("GET /v1/tenants/{name}", "200")({ kind: "Shard" })).toThrow("must have required property");
});

test("the document has every field of the model", () => {
  type Fields<T> = { [K in keyof T]-?: T[K] extends object | undefined ? keyof NonNullable<T[K]> : K };
  expectTypeOf<Fields<z.infer<typeof TenantSchema>>>().toEqualTypeOf<Fields<TenantView>>();
  expectTypeOf<Fields<z.infer<typeof ShardSchema>>>().toEqualTypeOf<Fields<ShardView>>();
  expectTypeOf<Fields<z.infer<typeof StatusSchema>>>().toEqualTypeOf<Fields<ClusterStatus>>();
  expectTypeOf<keyof z.infer<typeof MoveSchema>>().toEqualTypeOf<keyof Move>();
  expectTypeOf<keyof z.infer<typeof MoveResultSchema>>().toEqualTypeOf<keyof MoveResult>();
});
