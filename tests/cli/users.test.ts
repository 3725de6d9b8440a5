import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  const { service } = cluster;
  service.addTenant("clinic-a", { phase: "Asleep" });
  const account = { deactivated: false, locked: false, appservice: false };
  service.accounts.push(
    {
      userId: "@ada:clinic-a.localhost",
      displayName: "Ada",
      admin: true,
      createdAt: "2026-01-02T00:00:00Z",
      ...account,
    },
    { userId: "@bob:clinic-a.localhost", admin: false, lastSeen: "2026-02-03", ...account },
  );
});
afterEach(() => cluster.close());

test("tenant users lists users, and changes them with a word on what it woke", async () => {
  const users = (...args: string[]) => cluster.cli(["tenant", "users", ...args]);
  const [listed, made, given, unsure, deactivated] = await Promise.all([
    users("list", "clinic-a"),
    users("reset-password", "clinic-a", "ada", "-o", "json"),
    cluster.cli(["tenant", "users", "reset-password", "clinic-a", "bob", "--password-file", "-", "--keep-sessions"], {
      stdin: "correct horse\n",
    }),
    users("deactivate", "clinic-a", "ada"),
    users("deactivate", "clinic-a", "@bob:clinic-a.localhost", "--yes"),
  ]);
  expect(listed).toMatchObject({ code: 0, stderr: "" });
  const rows = listed.stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.trimEnd().split(/ {2,}/));
  // Bob may be deactivated by then.
  expect(rows.slice(0, 2)).toEqual([
    ["USER", "NAME", "STATE", "CREATED", "LAST SEEN"],
    ["@ada:clinic-a.localhost", "Ada", "admin", "2026-01-02", "-"],
  ]);
  const { password } = JSON.parse(made.stdout) as { password: string };
  expect(made.stderr).toBe("tenant clinic-a slept, and was woken for it\n");
  expect(given.stdout).toBe("@bob:clinic-a.localhost has another password\n");
  expect(unsure).toMatchObject({ code: 2, stderr: expect.stringContaining("nobody was deactivated") as string });
  expect(deactivated.stdout).toBe("@bob:clinic-a.localhost is deactivated\n");
  const changes = cluster.service.userChanges.map(({ userId, change }) => [userId[1], change]);
  expect(changes.length).toBe(3);
  expect(changes).toContainEqual(["a", { kind: "password", password, logoutDevices: true }]);
  expect(changes).toContainEqual(["b", { kind: "password", password: "correct horse", logoutDevices: false }]);
  expect(changes).toContainEqual(["b", { kind: "deactivate", erase: false }]);
});
