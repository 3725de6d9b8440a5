import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { API_TOKEN } from "../api/api-under-test.ts";
import { type ClusterUnderTest, runCli, startClusterUnderTest } from "./cli-under-test.ts";

vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeAll(async () => {
  cluster = await startClusterUnderTest();
  cluster.service.addTenant("clinic-a");
});
afterAll(() => cluster.close());

let home: string;
beforeEach(async () => void (home = await mkdtemp(join(tmpdir(), "shards-contexts-"))));
afterEach(() => rm(home, { recursive: true, force: true }));

const cli = (args: string[], env: Record<string, string> = {}) =>
  runCli(args, { env: { XDG_CONFIG_HOME: home, HOME: home, ...env } });
const names = async (args: string[], env: Record<string, string> = {}) =>
  cli(["tenant", "list", "-o", "name", ...args], env);
const FOUND = { code: 0, stdout: "clinic-a\n", stderr: "" };

describe("a context", () => {
  test("that is the first is in use, and leads to its cluster with the token that a command prints", async () => {
    const helper = `echo asked >&2; printf '${API_TOKEN}\\nnot of the token\\n'`;
    const added = await cli(["context", "add", "berlin", "--server", cluster.api.url, "--token-command", helper]);
    expect(added).toEqual({ code: 0, stdout: "context berlin is added, and in use\n", stderr: "" });
    expect(await names([])).toEqual({ ...FOUND, stderr: "asked\n" });
    expect((await stat(join(home, "synapse-shards", "contexts.json"))).mode & 0o777).toBe(0o600);
    expect(await readFile(join(home, "synapse-shards", "contexts.json"), "utf8")).not.toContain("clinic");
  });

  test("is chosen by option, by environment, and by use", async () => {
    await cli(["context", "add", "gone", "--data", join(home, "nothing-here")]);
    await cli(["context", "add", "here", "--data", cluster.data]);
    expect((await names([])).stderr).toContain("no cluster runs with data directory");
    expect(await names(["--context", "here"])).toEqual(FOUND);
    expect(await names([], { SYNAPSE_SHARDS_CONTEXT: "here" })).toEqual(FOUND);
    await cli(["context", "use", "here"]);
    expect(await names([])).toEqual(FOUND);
    // What is written on the command line comes first.
    expect((await names(["--context", "gone"], { SYNAPSE_SHARDS_CONTEXT: "here" })).code).toBe(1);
    const listed = await cli(["context", "list", "-o", "jsonpath=$[?@.inUse==true].name"]);
    expect(listed.stdout).toBe("here\n");
    await cli(["context", "remove", "here"]);
    expect((await cli(["context", "list", "-o", "name"])).stdout).toBe("gone\n");
    expect((await cli(["context", "use", "-"])).stdout).toBe("no context is in use\n");
  });

  test("that is unknown is refused with those that there are", async () => {
    expect(await names(["--context", "x"])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining("there are none"),
    });
    await cli(["context", "add", "here", "--data", cluster.data]);
    expect((await cli(["context", "use", "there"])).stderr).toBe(
      'error: there is no context "there"; there are: here\n',
    );
    expect((await names(["--context", "constructor"])).code).toBe(3);
  });

  test.each([
    [["add", "A b", "--data", "x"], "a context's name is"],
    [["add", "a", "--server", "shards.example", "--token-file", "x"], "--server must be a URL"],
    [["add", "a", "--server", "https://shards.example"], "one of --token-file FILE and --token-command"],
    [["add", "a"], "--server URL"],
  ])("is not added as %s", async (args, words) => {
    const { code, stderr } = await cli(["context", ...args]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(words) });
  });

  test("file that is damaged is named, and left as it is", async () => {
    const file = join(home, "contexts.json");
    await writeFile(file, '{"contexts": {"a": {"server": 1}}}');
    const env = { SYNAPSE_SHARDS_CONTEXTS: file };
    expect((await names([], env)).stderr).toContain(`${file} is damaged`);
    expect((await cli(["context", "add", "b", "--data", "x"], env)).code).toBe(1);
    expect(await readFile(file, "utf8")).toContain('"server": 1');
  });

  test("whose command fails says so, and sends nothing", async () => {
    await cli(["context", "add", "x", "--server", cluster.api.url, "--token-command", "echo no key >&2; exit 3"]);
    const { code, stderr } = await names([]);
    expect(code).toBe(1);
    expect(stderr).toContain("no key\nerror: the command for the token failed");
    expect(stderr).toContain("it ended with 3");
  });
});

describe("the environment", () => {
  test("names an API and its token", async () => {
    const server = { SYNAPSE_SHARDS_SERVER: cluster.api.url };
    expect(await names([], { ...server, SYNAPSE_SHARDS_TOKEN: API_TOKEN })).toEqual(FOUND);
    expect(await names([], { ...server, SYNAPSE_SHARDS_TOKEN_FILE: join(cluster.data, "api-token") })).toEqual(FOUND);
    expect((await names([], server)).stderr).toContain("$SYNAPSE_SHARDS_SERVER needs a token too");
    const { stderr } = await names(["--server", cluster.api.url, "--context", "x"]);
    expect(stderr).toContain("--context and --server name clusters each");
  });
});
