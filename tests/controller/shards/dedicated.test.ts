import { afterEach, beforeEach, expect, it } from "vitest";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { runController, runsOn, type Run, SETTINGS, tenantWhen as tenantIn } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const [A, B] = ["1.163.2-0", "1.163.2-1"];

let world: FakeWorld;
let run: Run;
let service: StoreClusterService;

beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world, { policy: { maxShardsPerSynapseImageTag: 2 } });
  service = new StoreClusterService(run.process.context, { ...SETTINGS, dedicates: true });
  for (const name of ["clinic", "neighbour"]) {
    await service.createTenant({ name });
    await tenantWhen(name, "runs", runsOn(A));
  }
});
afterEach(() => run.stop());

const tenantWhen = (name: string, what: string, is: (tenant: Tenant) => boolean) => tenantIn(world, name, what, is);

it("moves a dedicated tenant to a shard for it alone, where nobody joins it", async () => {
  await service.updateTenant("clinic", { isolation: "dedicated" });
  const { status } = await tenantWhen("clinic", "is alone", runsOn(B));
  expect(status.lastMove).toMatchObject({ reason: "Placement", outcome: "Succeeded" });
  await tenantWhen("neighbour", "stays", runsOn(A));
  await service.createTenant({ name: "newcomer" });
  await tenantWhen("newcomer", "gets a place elsewhere", runsOn(A));
  await service.updateTenant("clinic", { isolation: "shared" });
  expect((await service.getTenant("clinic")).spec.isolation).toBeUndefined();
});

it("leaves a dedicated tenant among others where there is no shard for it, and says so", async () => {
  await service.updateTenant("clinic", { isolation: "dedicated" });
  await tenantWhen("clinic", "is alone", runsOn(B));
  await service.updateTenant("neighbour", { isolation: "dedicated" });
  await service.createTenant({ name: "newcomer" });
  const { status } = await tenantWhen("newcomer", "waits", ({ status }) => status.reason === "MaxShardsReached");
  expect(status.phase).toBe("Pending");
  await tenantWhen("neighbour", "runs alone", runsOn(A));
});

it("tells a dedicated tenant with neighbours why it still has them", async () => {
  await service.createTenant({ name: "third" });
  await tenantWhen("third", "runs", runsOn(A));
  await service.updateTenant("clinic", { isolation: "dedicated" });
  await tenantWhen("clinic", "is alone", runsOn(B));
  await service.updateTenant("third", { isolation: "dedicated" });
  const { status } = await tenantWhen("third", "is told", ({ status }) => status.reason === "MaxShardsReached");
  expect(status).toMatchObject({ phase: "Running", shard: A });
  expect(status.message).toContain("it is dedicated and needs a shard of its own");
});

it("refuses it where a Helm release does it", async () => {
  const onKubernetes = new StoreClusterService(run.process.context, SETTINGS);
  const refusal = { code: "Conflict", message: expect.stringContaining("synapse.asTenantHook.enabled=false") };
  await expect(onKubernetes.updateTenant("clinic", { isolation: "dedicated" })).rejects.toMatchObject(refusal);
  const created = onKubernetes.createTenant({ name: "other", isolation: "dedicated" });
  await expect(created).rejects.toMatchObject(refusal);
  await onKubernetes.updateTenant("clinic", { isolation: "shared" });
});
