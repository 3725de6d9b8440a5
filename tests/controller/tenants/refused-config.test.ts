import { afterEach, beforeEach, expect, it } from "vitest";
import { changeOf } from "../../../src/model/change.ts";
import { modify } from "../../../src/ports/store.ts";
import { conditionsOf } from "../../../src/platforms/kubernetes/store/conditions.ts";
import { runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const GOOD = "good: 1";
/** Refused by every shard: it would reach the whole process. */
const REFUSED = "daemonize: true";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  await run.service.createTenant({ name: "a", config: GOOD });
  await tenantWhen(world, "a", "runs", runs);
  world.wrongConfigs.add(REFUSED);
});
afterEach(() => run.stop());

const tenant = async () => (await world.store.get("Tenant", "a"))!;
const status = async () => (await tenant()).status;
const upToDate = async () => conditionsOf(await tenant(), [], "").find(({ type }) => type === "UpToDate")?.reason;

async function refuse(config = REFUSED): Promise<void> {
  await run.service.updateTenant("a", { config });
  await tenantWhen(world, "a", "told of the refusal", (t) => runs(t) && t.status.refusedConfig !== undefined);
}

/** What the tenant's present shard was given. */
async function startedWith(): Promise<string | undefined> {
  const { shard } = await status();
  return world.assignments.get(`${shard}/a`)?.overrides;
}

it("forgets a refusal when the configuration is taken back", async () => {
  const { epoch } = await status();
  await refuse();
  expect(await upToDate()).toBe("ConfigRefused");
  await run.service.updateTenant("a", { config: GOOD });
  await expect.poll(async () => (await status()).reason).toBe("");
  await expect.poll(upToDate).toBe("AsSpecified");
  expect(await status()).toMatchObject({ phase: "Running", message: "", epoch });
});

it("forgets the refusal of a release when the specification names the one that runs, by kubectl as by the API", async () => {
  const edit = (release: string) => modify(world.store, "Tenant", "a", ({ spec }) => void (spec.release = release));
  world.wrongConfigs.add(GOOD);
  await edit("1.164.0");
  await expect.poll(async () => (await status()).reason).toBe("InvalidConfig");
  expect((await status()).refusedRelease).toMatchObject({ release: "1.164.0" });
  await edit("1.163.2");
  await expect.poll(async () => (await status()).reason).toBe("");
  expect(await status()).toMatchObject({ phase: "Running", message: "", shard: "1.163.2-0" });
  expect((await status()).refusedRelease).toBeUndefined();
});

/** The case refused. */
it("moves a tenant, with the configuration that last worked, while another one is refused", async () => {
  await refuse();
  await run.service.moveTenant("a");
  const moved = await tenantWhen(world, "a", "moved", (t) => runs(t) && t.status.lastMove?.reason === "Requested");
  expect(moved.status.lastMove).toMatchObject({ outcome: "Succeeded", from: "1.163.2-0", to: "1.163.2-1" });
  expect(await startedWith()).toBe(GOOD);
  expect(moved.status).toMatchObject({ reason: "InvalidConfig", message: expect.stringContaining(REFUSED) });
  expect(changeOf(moved)).toMatchObject({ state: "Refused", reason: "InvalidConfig" });
});

it("drains a shard, and upgrades a tenant, in the same way", async () => {
  await refuse();
  await run.service.drainShard("1.163.2-0");
  await expect.poll(async () => world.store.get("Shard", "1.163.2-0")).toBeUndefined();
  expect(await startedWith()).toBe(GOOD);
  await run.service.updateTenant("a", { release: "1.164.0" });
  const upgraded = await tenantWhen(world, "a", "upgraded", (t) => runs(t) && t.status.shard === "1.164.0-0");
  expect(await startedWith()).toBe(GOOD);
  expect(upgraded.status.refusedConfig).toMatchObject({ reason: "InvalidConfig" });
});

it("starts a tenant with what last worked after its shard, or the controller, began again, and still says that the change is not made", async () => {
  await refuse();
  const { epoch } = await status();
  await run.stop();
  world.shards.get("1.163.2-0")!.tenants.clear();
  run = runController(world);
  const again = await tenantWhen(world, "a", "runs again", (t) => runs(t) && t.status.epoch > epoch);
  expect(await startedWith()).toBe(GOOD);
  expect(again.status).toMatchObject({ phase: "Running", reason: "InvalidConfig" });
  const { problems } = await run.service.status();
  expect(problems).toContainEqual(
    expect.stringMatching(/^tenant a is Running \(InvalidConfig\): the change is not made/),
  );
});

it("goes on with what last worked when a changed configuration passes the check and then cannot be started", async () => {
  world.failingConfigs.set("broken: 1", { code: "ModuleFailed", message: "a module that does not load" });
  await run.service.updateTenant("a", { config: "broken: 1" });
  const { status: after } = await tenantWhen(
    world,
    "a",
    "runs as before",
    (t) => runs(t) && t.status.refusedConfig !== undefined,
  );
  expect(after).toMatchObject({ phase: "Running", reason: "ModuleFailed", lastMove: { outcome: "RolledBack" } });
  expect(await startedWith()).toBe(GOOD);
  expect(after.moveFailures ?? 0, "a configuration says nothing of the release or the shard").toBe(0);
});

it("takes a refused configuration back on request, and says where there is nothing to take back", async () => {
  await expect(run.service.updateTenant("a", { revertConfig: true })).rejects.toThrow(/nothing to take back/);
  await refuse();
  const reverted = await run.service.updateTenant("a", { revertConfig: true });
  expect(reverted.spec.config).toBe(GOOD);
  const settled = await tenantWhen(world, "a", "settled", (t) => changeOf(t).state === "InEffect");
  expect(settled.status).toMatchObject({ phase: "Running", reason: "", message: "" });
  expect(settled.status.refusedConfig).toBeUndefined();
});

it("tries a refused configuration again when it is asked for once more", async () => {
  await refuse();
  world.wrongConfigs.delete(REFUSED);
  await run.service.updateTenant("a", { config: REFUSED });
  await tenantWhen(world, "a", "runs as asked", (t) => changeOf(t).state === "InEffect");
  expect(await startedWith()).toBe(REFUSED);
});

it("leads hosts where what runs says, not where a refused configuration does", async () => {
  const hosts = () => run.process.context.feed.get("a")?.hosts;
  expect(hosts()).toEqual(["a.localhost"]);
  world.wrongConfigs.add("public_baseurl: https://other.example/");
  await refuse("public_baseurl: https://other.example/");
  expect(hosts()).toEqual(["a.localhost"]);
});

it("runs on, and moves, with the keys that it was started with when its secret is gone", async () => {
  const kept = await world.store.readConfigInEffect("a");
  await world.store.removeSecret("a");
  await world.store.writeConfigInEffect("a", kept!);
  await modify(world.store, "Tenant", "a", ({ metadata }) => void (metadata.deletionTimestamp = undefined));
  await tenantWhen(world, "a", "told", (t) => t.status.reason === "SecretMissing");
  expect(await status()).toMatchObject({ phase: "Running", address: expect.any(String) });
  await run.service.moveTenant("a");
  const moved = await tenantWhen(world, "a", "moved", (t) => runs(t) && t.status.lastMove?.outcome === "Succeeded");
  expect(moved.status).toMatchObject({ shard: "1.163.2-1", reason: "SecretMissing" });
});
