import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { sorted } from "../../src/cli/sorting.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeAll(async () => {
  cluster = await startClusterUnderTest();
  const { service } = cluster;
  service.addShard("1.163.2-0");
  service.run(service.addTenant("clinic-a"), "1.163.2-0");
  service.addTenant("clinic-b", { reason: "MaxShardsReached", message: "all 5 shards of 1.163.2 are full" });
  service.addTenant("clinic-10", { reason: "MaxShardsReached" }).spec.labels = { plan: "small" };
});
afterAll(() => cluster.close());

describe("--output", () => {
  test("wide has more columns than a table", async () => {
    const [head, ...rows] = (await cluster.printed("tenant", "list", "-o", "wide")).trim().split("\n");
    expect(head).toMatch(/NAME +.* URL +EPOCH +AGE +LABELS$/);
    expect(rows.find((row) => row.startsWith("clinic-10 "))).toMatch(/ plan=small$/);
    expect(await cluster.printed("shard", "get", "1.163.2-0", "-o", "wide")).toContain("AGE");
  });

  test("name prints what the next command takes", async () => {
    expect(await cluster.printed("tenant", "list", "-o", "name")).toBe("\nclinic-10\nclinic-a\nclinic-b\n");
    expect(await cluster.printed("shard", "get", "1.163.2-0", "-o", "name")).toBe("\n1.163.2-0\n");
    const { code, stderr } = await cluster.cli(["status", "-o", "name"]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: "error: -o name: what this command prints has no names\n" });
  });

  test.each([
    ["$[?@.phase == 'Pending'].name", "\nclinic-10\nclinic-b\n"],
    ["{[1].serverName}", "\nclinic-a.localhost\n"],
    ["[?@.name=='clinic-10'].labels", '\n{"plan":"small"}\n'],
    ["$[*].nothing", "\n"],
  ])("jsonpath=%s prints a value a line", async (expression, printed) => {
    expect(await cluster.printed("tenant", "list", "-o", `jsonpath=${expression}`)).toBe(printed);
  });

  test("a template is filled in with the fields of the JSON, as they are", async () => {
    const template = String.raw`{{#.}}{{name}}\t{{url}}\n{{/.}}`;
    expect(await cluster.printed("tenant", "list", "-o", `template=${template}`)).toContain(
      "\nclinic-a\thttp://clinic-a.localhost:8008\n",
    );
  });

  test.each([
    ["toml", "Allowed are table, wide, name, json, yaml, csv, jsonpath="],
    ["jsonpath=$[", "unclosed bracketed selection"],
    ["template={{#a}}", "Unclosed section"],
    ["jsonpath=", "Allowed are"],
  ])("%s is refused before anything is asked of the cluster", async (output, words) => {
    const { code, stderr } = await cluster.cli(["tenant", "list", "-o", output]);
    expect(code).toBe(2);
    expect(stderr).toContain(words);
  });

  test("an empty list is empty for programs, and said to be empty to people", async () => {
    const query = ["tenant", "list", "-l", "plan=large", "-o"];
    expect(await cluster.cli([...query, "name"])).toEqual({ code: 0, stdout: "", stderr: "" });
    expect((await cluster.cli([...query, "wide"])).stderr).toBe("No tenants found.\n");
  });
});

describe("--sort-by", () => {
  test("sorts a list, and what is missing last", async () => {
    const names = (...args: string[]) => cluster.printed("tenant", "list", "-o", "name", ...args);
    expect(await names("--sort-by", "shard")).toBe("\nclinic-a\nclinic-10\nclinic-b\n");
    expect(await names("--sort-by", "name", "--desc")).toBe("\nclinic-b\nclinic-a\nclinic-10\n");
  });

  test("sorts numbers by size and numbered names by number", () => {
    const rows = [
      { name: "s-10", load: 0.5 },
      { name: "s-9", load: 12 },
      { name: "s-1", load: null },
    ];
    const by = (sortBy: string, desc = false) => sorted(rows, { sortBy, desc }).map(({ name }) => name);
    expect(by("name")).toEqual(["s-1", "s-9", "s-10"]);
    expect(by("load", true)).toEqual(["s-9", "s-10", "s-1"]);
    expect(by("load")).toEqual(["s-10", "s-9", "s-1"]);
  });

  test("names the fields that there are", async () => {
    const { code, stderr } = await cluster.cli(["shard", "list", "--sort-by", "colour"]);
    expect(code).toBe(2);
    expect(stderr).toContain("Allowed choices are name, release, phase, tenants, capacity, load, createdAt");
  });
});
