import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AdminAccessConfigSchema } from "../../src/model/admin-access.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  cluster.service.addTenant("clinic-a");
});
afterEach(() => cluster.close());

const run = (...args: string[]) => cluster.cli(["tenant", "admin-access", ...args]);

test("tenant admin-access opens and closes a tenant, and names the address and the UI", async () => {
  expect((await run("show", "clinic-a")).stdout).toContain("no entrance for administrators");
  expect(await run("open", "clinic-a")).toMatchObject({ code: 1, stderr: expect.stringContaining("no entrance") });
  const ui = "https://admin.example/";
  cluster.service.adminEntrance = { ...AdminAccessConfigSchema.parse({ ui })!, listensAt: 8449 };
  const opened = await run("open", "clinic-a", "--network", "10.0.0.0/8", "192.0.2.7");
  const lines = opened.stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.split(/: +/));
  expect(lines).toEqual([
    ["Administrators", "of tenant clinic-a may come in"],
    ["From", "10.0.0.0/8, 192.0.2.7"],
    ["Homeserver", "https://clinic-a.localhost:8449"],
    ["Admin UI", "https://admin.example/?server=https%3A%2F%2Fclinic-a.localhost%3A8449"],
  ]);
  const account = { admin: true, deactivated: false, locked: false, appservice: false };
  cluster.service.accounts.push({ userId: "@ada:clinic-a.localhost", ...account });
  const session = await run("sign-in", "clinic-a", "ada");
  expect(session.stdout).toMatch(
    /Administrator: +@ada:clinic-a.localhost\nHomeserver: .*\nAccess token: +syt_of_an_admin/,
  );
  expect(JSON.parse((await run("show", "clinic-a", "-o", "json")).stdout)).toMatchObject({ open: true });
  expect((await run("close", "clinic-a")).stdout).toBe("tenant clinic-a is closed to its administrators\n");
  expect(cluster.service.tenants.get("clinic-a")!.spec.adminAccess).toBeUndefined();
});
