import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  cluster.service.addTenant("clinic-a", { phase: "Asleep" });
});
afterEach(() => cluster.close());

const appservice = (...args: string[]) => cluster.cli(["tenant", "appservice", ...args]);

test("tenant appservice adds, changes, lists and removes what the configuration has, and says no token in a list", async () => {
  const options = ["--url", "http://bot", "--sender", "desk", "--users", "@t_.*"];
  const added = await appservice("add", "clinic-a", "--id", "helpdesk", ...options);
  expect(added).toMatchObject({ code: 0, stderr: "" });
  const registration = parse(added.stdout) as { as_token: string };
  expect(registration).toMatchObject({
    id: "helpdesk",
    url: "http://bot",
    sender_localpart: "desk",
    as_token: expect.stringMatching(/^[\w-]{40,}$/) as string,
    namespaces: { users: [{ regex: "@t_.*", exclusive: true }] },
  });

  const again = await appservice("add", "clinic-a", "--id", "helpdesk");
  expect(again).toMatchObject({ code: 0, stdout: added.stdout, stderr: "nothing was changed\n" });

  const unsure = await appservice("add", "clinic-a", "--id", "helpdesk", "--url", "http://other");
  expect(unsure).toMatchObject({ code: 2, stderr: expect.stringContaining("nothing was changed") as string });

  const other = await cluster.cli(["tenant", "appservice", "add", "clinic-a", "--registration", "-"], {
    stdin: "id: bridge\nas_token: a\nhs_token: h\nsender_localpart: bridge\nnamespaces: {}\n",
  });
  expect(other.code).toBe(0);
  const listed = await appservice("list", "clinic-a");
  expect(listed.stdout).toMatch(/^helpdesk +http:\/\/bot +desk +@t_\.\*$/m);
  expect(listed.stdout).toMatch(/^bridge +- +bridge +-$/m);
  const [json, removed] = [
    await appservice("list", "clinic-a", "-o", "json"),
    await appservice("remove", "clinic-a", "helpdesk", "--yes"),
  ];
  expect(json.stdout).not.toMatch(new RegExp(`token|${registration.as_token}`));
  expect(removed.stdout).toBe("application service helpdesk is removed from tenant clinic-a\n");
  const gone = await appservice("remove", "clinic-a", "helpdesk", "--yes");
  expect(gone).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("has no application service helpdesk") as string,
  });
});

test("tenant appservice ping says how long it took, or why there was no answer", async () => {
  const [there, away, unknown, invalid] = await Promise.all([
    appservice("ping", "clinic-a", "bridge"),
    appservice("ping", "clinic-a", "away"),
    appservice("ping", "clinic-a", "unknown"),
    appservice("add", "clinic-a", "--url", "http://bot"),
  ]);
  expect(there).toMatchObject({ code: 0, stdout: "application service bridge answered in 12 ms\n" });
  expect(away).toMatchObject({ code: 1, stderr: expect.stringContaining("it did not answer in time") as string });
  expect(unknown).toMatchObject({ stderr: expect.stringContaining("no application service unknown") as string });
  expect(invalid.code).not.toBe(0);
  expect(invalid.stderr).toContain("the registration: id");
});
