import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { browserProgram, openView, signIn, startBrowser } from "../console/support/browser.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../support/patience.ts";
import { Cluster } from "./support/cluster.ts";
import { withConfig } from "./support/fixtures.ts";
import { messagesOf, newUser, type TestUser } from "./support/matrix.ts";

let cluster: Cluster;
let user: TestUser;
let room: string;
beforeAll(async () => {
  cluster = await Cluster.start({ maxTenantsPerShard: 3, avgShardsLoadRedistributionThreshold: 0 });
  const config = await withConfig(cluster);
  await cluster.createTenant("clinic-a", ...config);
  await cluster.createTenant("clinic-b", ...config);
  user = await newUser(cluster, "clinic-a", "alice");
  room = (await user.client.createRoom({})).room_id;
});
afterAll(() => cluster?.destroy());

/** Sends messages until stopped, whatever happens; tells which were acknowledged. */
function sender(prefix: string): { stop(): Promise<string[]> } {
  const acknowledged: string[] = [];
  let going = true;
  const loop = (async () => {
    for (let n = 0; going; n++) {
      try {
        await user.client.sendEvent(
          room,
          null,
          "m.room.message" as never,
          { msgtype: "m.text", body: `${prefix} ${n}` } as never,
          `${prefix}-${n}`,
        );
        acknowledged.push(`${prefix} ${n}`);
      } catch {
        // Not acknowledged, so nothing was promised.
      }
      await sleep(20);
    }
  })();
  return {
    stop: async () => {
      going = false;
      await loop;
      return acknowledged;
    },
  };
}

/** Nothing acknowledged is lost or doubled, and each tenant runs on exactly one shard. */
async function expectWhole(acknowledged: string[]): Promise<void> {
  await until("both tenants run", async () => (await cluster.tenants()).every((row) => row.phase === "Running"));
  const stored = await until("the tenant answers", () => messagesOf(user, room));
  for (const body of acknowledged)
    expect(
      stored.filter((b) => b === body),
      body,
    ).toHaveLength(1);
  const runningOn: string[] = [];
  for (const shard of await cluster.shards()) {
    const { tenants } = (await cluster.shardState(shard.name)) as { tenants: { name: string; phase: string }[] };
    runningOn.push(...tenants.filter((t) => t.phase === "running").map((t) => t.name));
  }
  expect(runningOn.toSorted()).toEqual(["clinic-a", "clinic-b"]);
}

it("after kill -9 of a shard its tenants serve again", async () => {
  const sending = sender("shard");
  await sleep(1_000);
  const { shard } = await cluster.tenant("clinic-a");
  const pid = await cluster.shardPid(shard!);
  process.kill(pid, "SIGKILL");
  await until("another process runs the shard", async () => (await cluster.shardPid(shard!)) !== pid);
  await until("it answers", () => user.client.whoami());
  await sleep(1_000);
  await expectWhole(await sending.stop());
});

it("tenants serve without it, and it comes back and goes on", async () => {
  const pid = await cluster.processPid("controller");
  const sending = sender("controller");
  await sleep(500);
  const failuresBefore = user.failures.length;
  process.kill(pid, "SIGKILL");
  await sleep(500);
  await until("another controller runs", async () => (await cluster.processPid("controller")) !== pid);
  expect((await cluster.move("clinic-a")).failedRequests).toBe(0);
  const acknowledged = await sending.stop();
  expect(user.failures.slice(failuresBefore)).toEqual([]);
  await expectWhole(acknowledged);
});

it("a controller killed at any point of a move is followed by another that ends it", async () => {
  const sending = sender("mid-move");
  for (const delay of [0, 30, 80, 150, 250, 400]) {
    const { id } = (await cluster.api("POST", "/v1/tenants/clinic-a/move", {})).body as { id: string };
    await sleep(delay);
    const pid = await cluster.processPid("controller");
    process.kill(pid, "SIGKILL");
    await until(`the move killed after ${delay} ms is ended`, async () => {
      const { body } = await cluster.api("GET", "/v1/tenants/clinic-a");
      const { status } = body as {
        status: { phase: string; move?: unknown; lastMove?: { id: string; outcome: string } };
      };
      return (
        status.phase === "Running" &&
        status.move === undefined &&
        status.lastMove?.id === id &&
        status.lastMove.outcome === "Succeeded"
      );
    });
  }
  await expectWhole(await sending.stop());
});

it("a controller killed at any point of a rename is followed by another that ends it", async () => {
  const sending = sender("mid-rename");
  for (const { from, to, delay } of [
    { from: "clinic-a", to: "practice-a", delay: 50 },
    { from: "practice-a", to: "clinic-a", delay: 400 },
  ]) {
    const { status } = await cluster.api("POST", `/v1/tenants/${from}/rename`, { to });
    expect(status).toBe(202);
    await sleep(delay);
    process.kill(await cluster.processPid("controller"), "SIGKILL");
    await until(`the rename killed after ${delay} ms is ended`, async () => {
      const rows = await cluster.tenants();
      return rows.some(({ name, phase }) => name === to && phase === "Running") && rows.length === 2;
    });
  }
  await expectWhole(await sending.stop());
});

it.skipIf(browserProgram() === undefined)(
  "the console of a real cluster moves a tenant, and goes on when its controller is killed",
  async () => {
    const browser = await startBrowser();
    try {
      const { apiUrl } = JSON.parse(await readFile(join(cluster.dataDir, "cluster.json"), "utf8")) as {
        apiUrl: string;
      };
      const view = await openView(browser, apiUrl);
      const { page } = view;
      await signIn(view, (await readFile(join(cluster.dataDir, "api-token"), "utf8")).trim(), "/tenants/clinic-b");
      await page.getByRole("button", { name: "Move …" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Move", exact: true }).click();
      await page.getByRole("region", { name: "Last move" }).getByText("Succeeded").waitFor();
      process.kill(await cluster.processPid("controller"), "SIGKILL");
      await page.getByText("Live", { exact: true }).waitFor({ state: "detached" });
      await page.getByText("Live", { exact: true }).waitFor();
      await page.getByRole("link", { name: "Timeline" }).click();
      expect(await page.getByRole("region", { name: "Timeline" }).getByText("Created").first().innerText()).toBe(
        "Created",
      );
      await view.close();
    } finally {
      await browser.close();
    }
  },
);

it("the gateway is started again and knows the routes", async () => {
  const sending = sender("gateway");
  const pid = await cluster.processPid("gateway");
  process.kill(pid, "SIGKILL");
  await until("another gateway runs", async () => (await cluster.processPid("gateway")) !== pid);
  await until("it answers", () => user.client.whoami());
  await sleep(500);
  await expectWhole(await sending.stop());
});

it("every tenant, user and message is there after Ctrl-C or kill -9 of `up`", async () => {
  for (const how of ["SIGINT", "SIGKILL"] as const) {
    const sending = sender(how);
    await sleep(500);
    const restarted = cluster.restart(how);
    await restarted;
    await until("the tenant answers", () => user.client.whoami());
    await sleep(300);
    await expectWhole(await sending.stop());
  }
});
