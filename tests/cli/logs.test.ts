import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { lineFilter, readable } from "../../src/cli/log-lines.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

vi.setConfig({ testTimeout: 180_000 });

const line = (level: string, message: string, minutesAgo = 0) =>
  JSON.stringify({
    time: new Date(Date.now() - minutesAgo * 60_000).toISOString(),
    level,
    logger: "synapse.http",
    serverName: "clinic-a.localhost",
    request: "PUT-7",
    message,
  });

describe("readable", () => {
  test("prints time, level, origin and message, and a traceback on lines of its own", () => {
    const words = readable(line("ERROR", "failed\nTraceback:\n  File x\u001b[2J"), false);
    expect(words).toMatch(
      /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ERROR {4}synapse\.http PUT-7 {2}failed\nTraceback:\n {2}File x \[2J$/,
    );
  });

  test.each(["not of ours", "{broken", '{"time":"x","level":"INFO","message":"m"}'])("leaves %s as it is", (text) =>
    expect(readable(text, false)).toBe(text),
  );
});

test("what is no entry goes with the one before it", () => {
  const lines = ["torn", line("INFO", "a"), "more of a", line("ERROR", "b"), "more of b"];
  expect(lines.filter(lineFilter({ level: "warning" }))).toEqual(lines.slice(3));
  expect(lines.filter(lineFilter({}))).toEqual(lines);
});

describe("the commands", () => {
  let cluster: ClusterUnderTest;
  const lines = [line("WARNING", "old", 90), line("INFO", "chatter", 1), line("WARNING", "new", 1)];
  beforeAll(async () => {
    cluster = await startClusterUnderTest();
    cluster.service.addTenant("clinic-a");
    cluster.service.tenantLog = async function* () {
      yield* lines;
    };
  });
  afterAll(() => cluster.close());

  test("logs --since --level prints what is asked for", async () => {
    const printed = await cluster.printed("tenant", "logs", "clinic-a", "--since", "1h", "--level", "warning");
    expect(printed).toMatch(/^\n[^\n]* WARNING {2}synapse\.http PUT-7 {2}new\n$/);
  });

  test("logs -o json prints lines as they were written", async () => {
    expect(await cluster.printed("tenant", "logs", "clinic-a", "-o", "json")).toBe(`\n${lines.join("\n")}\n`);
    expect((await cluster.cli(["tenant", "logs", "clinic-a", "-o", "yaml"])).code).toBe(2);
  });

  test("events --since --type leaves out what is older, and of another type", async () => {
    const at = (minutesAgo: number) => new Date(Date.now() - minutesAgo * 60_000).toISOString();
    const event = { reason: "Moved", object: "Tenant/clinic-a", message: "m" };
    cluster.service.log.push(
      { ...event, id: 1, time: at(90), type: "Warning" },
      { ...event, id: 2, time: at(5), type: "Normal" },
      { ...event, id: 3, time: at(5), type: "Warning" },
    );
    const printed = await cluster.printed("events", "--since", "1h", "--type", "Warning", "-o", "jsonpath=$[*].id");
    expect(printed).toBe("\n3\n");
    const { code, stderr } = await cluster.cli(["events", "--since", "yesterday"]);
    expect(code).toBe(2);
    expect(stderr).toContain("Allowed is a time ago such as 90s, 15m, 6h or 2d");
  });
});
