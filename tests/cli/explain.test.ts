import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { Client } from "../../src/cli/client.ts";
import { allCodes, CATALOGUE } from "../../src/model/catalogue/catalogue.ts";
import { runCli } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

test("explains a code without a cluster, whatever its capitals", async () => {
  const { code, stdout, stderr } = await runCli(["explain", "toolarge", "--data", "/nowhere"]);
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout).toMatchInlineSnapshot(`
    "Code:    TooLarge
    Met as:  error of the API and of the command line
    Means:   The request's body or path is larger than the API accepts.
    To do:   Send less: a body may have 1 MiB.

    Code:    TooLarge
    Met as:  answer of the gateway, in its header \`X-Synapse-Shards-Error\`
    Means:   413 M_TOO_LARGE: the request's body is larger than \`maxBodyBytes\`.
    To do:   Raise the gateway's \`maxBodyBytes\`, if larger uploads are to be allowed.
    "
  `);
});

test("prints what there is for programs", async () => {
  const { stdout } = await runCli(["explain", "MaxShardsReached", "-o", "json"]);
  expect(JSON.parse(stdout)).toEqual([
    {
      name: "MaxShardsReached",
      met: ["tenant"],
      means: expect.stringMatching(/free place/),
      todo: expect.stringMatching(/maxShardsPerSynapseImageTag/),
      runbook: "SynapseShardsFull",
    },
  ]);
});

test("lists all codes, one a line", async () => {
  const { code, stdout } = await runCli(["explain"]);
  expect(code).toBe(0);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.length).toBe(CATALOGUE.length + 1);
  expect(lines).toContainEqual(expect.stringMatching(/^NoPlace +api +No shard can take the tenants/));
  const names = (await runCli(["explain", "-o", "name"])).stdout.trimEnd().split("\n");
  expect(new Set(names)).toEqual(new Set(allCodes()));
});

test("ends with 3 for an unknown code, and says which was probably meant", async () => {
  expect(await runCli(["explain", "MaxShardReached"])).toEqual({
    code: 3,
    stdout: "",
    stderr: 'error: there is no code "MaxShardReached"; did you mean MaxShardsReached?\n',
  });
  expect(await runCli(["explain", "Xyzzy"])).toEqual({
    code: 3,
    stdout: "",
    stderr: 'error: there is no code "Xyzzy"; without a code, explain lists all\n',
  });
});

test("completion offers the codes without a cluster", async () => {
  const { code, stdout } = await runCli(["__names", "code"]);
  expect([code, stdout.trimEnd().split("\n")]).toEqual([0, allCodes()]);
  expect((await runCli(["completion", "bash"])).stdout).toMatch(/"explain"\) .*names=code;;/);
});

test("an error of the API points to its explanation where that has a runbook", async () => {
  const server = createServer(({ url = "" }, response) => {
    const error = { code: url.slice(1), message: "it is not so" };
    response.writeHead(409, { "content-type": "application/json" }).end(JSON.stringify({ error }));
  }).listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const client = new Client(
    `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    "token",
    (problem) => problem,
  );
  onTestFinished(() => client.close());
  await expect(client.call("GET", "/NoPlace")).rejects.toThrow(/^it is not so \(explain NoPlace tells more\)$/);
  await expect(client.call("GET", "/AlreadyExists")).rejects.toThrow(/^it is not so$/);
  await expect(client.call("GET", "/OfALaterVersion")).rejects.toThrow(/^it is not so$/);
});
