import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../support/patience.ts";
import { Cluster } from "../e2e/support/cluster.ts";
import { withConfig } from "../e2e/support/fixtures.ts";
import { measureNoise } from "../e2e/support/noise.ts";
import { newUser, type TestUser } from "../e2e/support/matrix.ts";

/** What a neighbour may be held up for at the most. */
const STALL_SECONDS = 0.1;

let cluster: Cluster;
let neighbour: TestUser;
let hole: Server;
beforeAll(async () => {
  cluster = await Cluster.start();
  await cluster.createTenant("neighbour", ...(await withConfig(cluster)));
  neighbour = await newUser(cluster, "neighbour", "nina");
  hole = createServer(() => {}).listen(0, "127.0.0.1"); // accepts, and never says a word
});
afterAll(async () => {
  hole?.close();
  await cluster?.destroy();
});

const psycopg2 = (args: Record<string, unknown>) => ({
  database: {
    name: "psycopg2",
    args: { user: "tenant", password: "top-secret-1", dbname: "d", host: "127.0.0.1", ...args },
  },
});

interface Case {
  name: string;
  config: () => Record<string, unknown> | Promise<Record<string, unknown>>;
  reason: RegExp;
  message: RegExp;
}
const cases: Case[] = [
  {
    name: "wrong-type",
    config: () => ({ media_retention: { local_media_lifetime: "soon" } }),
    reason: /^InvalidConfig$/,
    message: /media_retention/,
  },
  {
    name: "no-signing-key",
    config: () => ({ signing_key: "rsa a_key top-secret-1" }),
    reason: /^SigningKeyInvalid$/,
    message: /signing_key/,
  },
  {
    name: "wrong-password",
    config: async () => psycopg2(await realDatabase()),
    reason: /^DatabaseAuthenticationFailed$/,
    message: /password|login/i,
  },
  { name: "database-down", config: () => psycopg2({ port: 1 }), reason: /^DatabaseUnreachable$/, message: /./ },
  {
    name: "database-silent",
    config: () => psycopg2({ port: (hole.address() as { port: number }).port }),
    reason: /^DatabaseUnreachable$/,
    message: /./,
  },
  {
    name: "port-taken",
    config: () => ({ listeners: [{ port: (hole.address() as { port: number }).port, type: "http", resources: [] }] }),
    reason: /^OptionNotAllowed$/,
    message: /listeners/,
  },
  {
    name: "process-wide",
    config: () => ({ use_frozen_dicts: true }),
    reason: /^OptionNotAllowed$/,
    message: /use_frozen_dicts/,
  },
  {
    name: "bad-module",
    config: () => ({ modules: [{ module: "no.such.Module" }] }),
    reason: /^(OptionNotAllowed|ModuleFailed)$/,
    message: /no\.such/,
  },
];

/** The embedded server, with a user who has another password. */
async function realDatabase(): Promise<Record<string, unknown>> {
  const { postgres } = JSON.parse(await readFile(`${cluster.dataDir}/controller.json`, "utf8")) as {
    postgres: { port: number };
  };
  return { port: postgres.port, user: "tenant_neighbour", dbname: "some_other_database" };
}

it("what is no YAML mapping is refused before anything is made", async () => {
  for (const text of ["rc_message: [1\nb: 2", "- just\n- a list"]) {
    const { code, stderr } = await cluster.cli("tenant", "create", "broken-yaml", ...(await withConfig(cluster, text)));
    expect([code, stderr]).toEqual([2, expect.stringMatching(/not (YAML|a YAML mapping)/)]);
  }
  expect((await cluster.tenants()).map((row) => row.name)).toEqual(["neighbour"]);
});

it("each mistake shows as Failed with its reason in a sentence, is tried again, and stalls nobody", async () => {
  const shard = (await cluster.tenant("neighbour")).shard!;
  await cluster.shardStats(shard);
  const endNoise = measureNoise();
  let asking = true;
  const asker = (async () => {
    while (asking) {
      await neighbour.client.whoami();
      await sleep(5);
    }
  })();
  for (const { name, config } of cases) {
    const { code, stderr } = await cluster.cli(
      "tenant",
      "create",
      name,
      ...(await withConfig(cluster, await config())),
    );
    expect(code, `${name}: ${stderr}`).toBe(0);
  }
  for (const { name, reason, message } of cases) {
    const failed = await until(
      `${name} is Failed`,
      async () => {
        const { body } = await cluster.api("GET", `/v1/tenants/${name}`);
        const { status } = body as { status: { phase: string; reason: string; message: string } };
        return status.phase === "Failed" && status;
      },
      90,
    );
    expect(failed.reason, name).toMatch(reason);
    expect(failed.message, name).toMatch(message);
    expect(failed.message, name).not.toMatch(/Traceback|top-secret-1|\n/);
  }
  for (const { name } of cases) {
    const before = (await cluster.api("GET", `/v1/tenants/${name}`)).body as { status: { failures: number } };
    if (name !== "wrong-type") continue;
    await until(
      "it is tried again",
      async () =>
        ((await cluster.api("GET", `/v1/tenants/${name}`)).body as { status: { failures: number } }).status.failures >
        before.status.failures,
    );
  }
  asking = false;
  await asker;
  expect(neighbour.failures).toEqual([]);
  const { reactorLag } = await cluster.shardStats(shard);
  const noise = await endNoise();
  console.info(
    `longest stall of the shard while ${cases.length} tenants failed: ${Math.round(reactorLag.maxSeconds * 1000)} ms`,
  );
  expect(reactorLag.maxSeconds).toBeLessThan(STALL_SECONDS + 2 * noise);
  const events = await cluster.cli("events", "-o", "json");
  expect(events.stdout).not.toContain("top-secret-1");
});

it("a corrected tenant runs at once", async () => {
  const { code, stderr } = await cluster.cli(
    "tenant",
    "update",
    "wrong-type",
    ...(await withConfig(cluster)),
    "--wait",
  );
  expect(code, stderr).toBe(0);
  expect(await cluster.tenant("wrong-type")).toMatchObject({ phase: "Running", reason: null });
});

it("failed tenants can be deleted", async () => {
  for (const { name } of cases)
    expect((await cluster.cli("tenant", "delete", name, "--purge", "--yes", "--wait")).code).toBe(0);
  expect((await cluster.tenants()).map((row) => row.name)).toEqual(["neighbour"]);
});
