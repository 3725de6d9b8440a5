import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { AuditEntry } from "../../src/api/audit.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

const entry = (more: Partial<AuditEntry>): AuditEntry => ({
  time: new Date().toISOString(),
  actor: "ada",
  role: "admin",
  action: "updateTenant",
  method: "PATCH",
  path: "/v1/tenants/clinic-a",
  status: 200,
  client: "127.0.0.1",
  ...more,
});

let cluster: ClusterUnderTest;
beforeAll(async () => {
  cluster = await startClusterUnderTest();
  const changes = [{ field: "name", before: null, after: "clinic-b" }];
  cluster.api.audited.push(
    entry({ time: "2026-01-01T00:00:00.000Z", changes: [{ field: "release", before: "1.157.2", after: "1.163.2" }] }),
    entry({ actor: "bob", action: "createTenant", method: "POST", path: "/v1/tenants", changes }),
    entry({ path: "/v1/tenants/clinic-b?purge=true", action: "deleteTenant" }),
  );
});
afterAll(() => cluster.close());

const actions = (...args: string[]) => cluster.printed("audit", ...args, "-o", "jsonpath=$[*].action");

test("shows who changed what, and from what to what where there is room", async () => {
  expect(await cluster.printed("audit")).toContain("updateTenant   /v1/tenants/clinic-a");
  expect(await cluster.printed("audit", "list", "-o", "wide")).toContain("release: 1.157.2 → 1.163.2");
});

test("is narrowed by time, token and object", async () => {
  expect(await actions("--since", "1d")).toBe("\ncreateTenant\ndeleteTenant\n");
  expect(await actions("--by", "bob")).toBe("\ncreateTenant\n");
  expect(await actions("--for", "clinic-b")).toBe("\ncreateTenant\ndeleteTenant\n");
  expect(await actions("--tail", "1")).toBe("\ndeleteTenant\n");
});

test("is exported line by line, as it was written", async () => {
  const lines = (await cluster.printed("audit", "export", "--by", "ada")).trim().split("\n");
  expect(lines.map((line) => JSON.parse(line) as AuditEntry)).toEqual(
    cluster.api.audited.filter(({ actor }) => actor === "ada"),
  );
});

test("verify fails where an entry was tampered with", async () => {
  expect(await cluster.printed("audit", "verify")).toMatch(
    /^\n3 entries, of which 3 are older than the chain; head [0-9a-f]{64}\n$/,
  );
  cluster.api.audited.push(
    Object.assign(entry({}), { previous: "a".repeat(64) }),
    Object.assign(entry({ time: "2026-02-02T00:00:00.000Z" }), { previous: "b".repeat(64) }),
  );
  const { code, stdout, stderr } = await cluster.cli(["audit", "verify"]);
  expect(code).toBe(1);
  expect(stdout).toContain("entry 5 of 2026-02-02T00:00:00.000Z: the entry before it was changed or removed");
  expect(stderr).toContain("the audit log was tampered with in 1 place");
});

test("tokens and accounts are made for a person, a machine or a tenant admin, and listed", async () => {
  const { api } = cluster;
  const made = ["token", "create", "acme-it", "--role", "tenant-admin", "--tenants", "customer=acme"];
  expect(await cluster.printed(...made, "--expires", "90d")).toMatch(/^\nss_[\w-]{40,}\n$/);
  expect(api.namedTokens.list()).toMatchObject([{ name: "acme-it", role: "tenant-admin", tenants: "customer=acme" }]);
  expect(await cluster.printed("token", "list")).toMatch(/acme-it +tenant-admin +customer=acme +\d+s +in 89d +never/);
  const wrong = await cluster.cli(["token", "create", "x", "--role", "tenant-admin"]);
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining("needs a selector of its tenants")]);
  expect(await cluster.printed("token", "revoke", "acme-it")).toContain("revoked the token acme-it");
  expect(api.namedTokens.list()).toEqual([]);
  expect(await cluster.printed("account", "create", "ada", "--role", "operator")).toMatch(/\/enrol#[\w-]{40,}\n$/);
  expect(await cluster.printed("account", "list")).toMatch(/ada +operator +- +link not used yet/);
  expect(await cluster.printed("account", "remove", "ada")).toContain("removed the account ada");
});
