import { afterEach, beforeEach, expect, it } from "vitest";
import { changeOf } from "../../../src/model/change.ts";
import { created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(() => {
  world = new FakeWorld();
  run = runController(world, {
    policy: { maxTenantsPerShard: 3, avgShardsLoadRedistributionThreshold: 3, consolidateAfterSeconds: 0.2 },
  });
});
afterEach(() => run.stop());

it("refuses what is no YAML mapping at once, when a tenant is created and when it is changed", async () => {
  await created(world, run, ["a"]);
  for (const config of ["[1,2", "just words", "- a\n- list", "a: 1\n  b: 2"]) {
    const create = run.service.createTenant({ name: "b", config });
    await expect(create, config).rejects.toMatchObject({ code: expect.stringMatching(/^Invalid(Input|Config)$/) });
    await expect(run.service.updateTenant("a", { config }), config).rejects.toMatchObject({
      code: expect.stringMatching(/^Invalid(Input|Config)$/),
    });
  }
  expect(await world.store.get("Tenant", "b")).toBeUndefined();
  expect((await world.store.get("Tenant", "a"))?.spec.config).toBe("");
});

it("makes a tenant as another one is, with what is given instead, and nothing of the other's own", async () => {
  const config = "public_baseurl: https://m.a.example/\nenable_registration: false\n";
  const labels = { plan: "small", region: "eu" };
  await run.service.createTenant({ name: "a", config, labels, quotas: { users: 5 }, hibernation: { mode: "Never" } });
  const asked = { name: "b", fromTemplate: "a", labels: { region: "us" }, quotas: { users: 7 } };
  const { spec } = await run.service.createTenant(asked);
  expect(spec).toEqual({
    serverName: "b.localhost",
    release: "1.163.2",
    config: "enable_registration: false\n",
    reclaimPolicy: "Retain",
    labels: { plan: "small", region: "us" },
    quotas: { users: 7 },
    hibernation: { mode: "Never" },
  });
  const events = await world.store.listEvents({ object: "Tenant/b", limit: 100 });
  expect(events.map(({ message }) => message).join()).toContain("as tenant a is, without its public_baseurl");
  await expect(run.service.createTenant({ name: "c", fromTemplate: "nobody" })).rejects.toMatchObject({
    code: "NotFound",
  });
});

it("refuses a change of a tenant that is being deleted, also when the deletion comes in between", async () => {
  await created(world, run, ["a"]);
  world.fault = (call, [kind]) => {
    // After the tenant was looked at, and before it is written.
    if (call === "checkRelease") void run.service.deleteTenant("a", { purge: false });
    return call === "remove" && kind === "Tenant" ? new Error("it stays for now") : undefined;
  };
  await expect(run.service.updateTenant("a", { release: "1.164.0" })).rejects.toMatchObject({ code: "Conflict" });
  await expect(run.service.updateTenant("a", { config: "x: 1" })).rejects.toMatchObject({ code: "Conflict" });
  world.fault = () => undefined;
});

it("refuses an unknown release at once, and installs a known one after it has answered", async () => {
  world.unknownReleases.add("1.999.0");
  await expect(run.service.createTenant({ name: "a", release: "1.999.0" })).rejects.toMatchObject({
    code: "UnknownRelease",
  });
  expect(await world.store.get("Tenant", "a")).toBeUndefined();
  let finish = () => {};
  world.installing = new Promise<void>((done) => (finish = done));
  const tenant = await run.service.createTenant({ name: "a", release: "1.164.0" });
  expect(tenant.status).toMatchObject({ phase: "Pending", reason: "InstallingRelease" });
  const waiting = await tenantWhen(world, "a", "told of the progress", ({ status }) =>
    status.message.includes("downloading"),
  );
  expect(waiting.status).toMatchObject({ phase: "Starting", reason: "InstallingRelease" });
  finish();
  expect((await tenantWhen(world, "a", "runs", runs)).status).toMatchObject({ reason: "", shard: "1.164.0-0" });
});

it("refuses a release that the database forbids as soon as it is installed, though no shard of it comes up", async () => {
  await created(world, run, ["a"]);
  const before = (await world.store.get("Tenant", "a"))!.status;
  world.schemaCompatVersion = 95;
  world.waiting.set("1.99.0-0", { problem: { reason: "Crashed", message: "it ends at once" } });
  await run.service.updateTenant("a", { release: "1.99.0" });
  const refused = await tenantWhen(world, "a", "refused", ({ status }) => status.refusedRelease !== undefined);
  expect(refused.status).toMatchObject({
    phase: "Running",
    shard: before.shard,
    epoch: before.epoch,
    reason: "SchemaTooNew",
    message: expect.stringContaining("schema 95"),
    refusedRelease: { release: "1.99.0", reason: "SchemaTooNew" },
  });
  expect(changeOf(refused).state).toBe("Refused");
  // It does not come back to waiting, and what nobody wants goes.
  await expect.poll(() => world.store.get("Shard", "1.99.0-0")).toBeUndefined();
  expect((await world.store.get("Tenant", "a"))!.status).toMatchObject({ phase: "Running", reason: "SchemaTooNew" });
});

it.each(["UnknownRelease", "UnsupportedRelease"] as const)(
  "refuses a release that only its installation shows to be none: %s",
  async (code) => {
    await created(world, run, ["a"]);
    world.uninstallable.set("1.999.0", { code, message: "there is no Synapse 1.999.0" });
    await run.service.updateTenant("a", { release: "1.999.0" });
    const refused = await tenantWhen(world, "a", "refused", ({ status }) => status.refusedRelease !== undefined);
    expect(refused.status).toMatchObject({ phase: "Running", reason: code, shard: "1.163.2-0" });
    expect(refused.status.message).toContain("there is no Synapse 1.999.0");
  },
);

it("leaves a tenant where somebody moved it, until its pin ends: consolidation does not undo that", async () => {
  await created(world, run, ["a", "b"]);
  const move = await run.service.moveTenant("a", { pinSeconds: 30 });
  expect(Date.parse(move.pinnedUntil!) - Date.parse(move.requestedAt)).toBe(30_000);
  const moved = await tenantWhen(world, "a", "moved", (t) => runs(t) && t.status.shard === move.to);
  expect(moved.status.pin).toEqual({ shard: move.to, until: move.pinnedUntil });
  // The shard that it left is the one that consolidation may give up.
  await tenantWhen(world, "b", "with it", (t) => runs(t) && t.status.shard === move.to);
  expect((await world.store.get("Tenant", "a"))?.status.lastMove?.id).toBe(move.id);
});

it("pins a requested move for an hour unless something else is asked for", async () => {
  await created(world, run, ["a"]);
  const move = await run.service.moveTenant("a");
  expect(Date.parse(move.pinnedUntil!) - Date.parse(move.requestedAt)).toBe(3_600_000);
  await tenantWhen(world, "a", "moved", (t) => runs(t) && t.status.lastMove?.id === move.id);
  const unpinned = await run.service.moveTenant("a", { pinSeconds: 0 });
  expect(unpinned.pinnedUntil).toBeUndefined();
  expect((await world.store.get("Tenant", "a"))?.status.pin).toBeUndefined();
});

it("changes labels without a restart, keeps the others, and refuses too many of them together", async () => {
  await run.service.createTenant({ name: "a", labels: { plan: "small", trial: "" } });
  const { status } = await tenantWhen(world, "a", "created", runs);
  const labelled = await run.service.updateTenant("a", { labels: { trial: null, region: "eu" } });
  expect(labelled.spec.labels).toEqual({ plan: "small", region: "eu" });
  const { generation } = labelled.metadata;
  const noted = await tenantWhen(world, "a", "noted", (t) => runs(t) && t.status.observedGeneration === generation);
  expect(noted.status.epoch).toBe(status.epoch);
  const many = Object.fromEntries(Array.from({ length: 31 }, (_, n) => [`label-${n}`, ""]));
  await expect(run.service.updateTenant("a", { labels: many })).rejects.toThrow("33 labels are too many: at most 32");
});
