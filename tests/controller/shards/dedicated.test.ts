import { afterEach, beforeEach, expect, it } from "vitest";
import { Controller } from "../../../src/controller/controller.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { tenantWhen as tenantIn } from "../../support/controller-run.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const [A, B] = ["1.163.2-0", "1.163.2-1"];

let world: FakeWorld;
let process: FakeProcess;
let controller: Controller;
let service: StoreClusterService;

beforeEach(async () => {
  world = new FakeWorld();
  process = new FakeProcess(world, { policy: { maxShardsPerSynapseImageTag: 2 } });
  controller = new Controller(process.context);
  await controller.start();
  service = new StoreClusterService(process.context, { ...SETTINGS, dedicates: true });
  for (const name of ["clinic", "neighbour"]) {
    await service.createTenant({ name });
    await tenantWhen(name, "runs", runsOn(A));
  }
});
afterEach(() => controller.stop());

const tenantWhen = (name: string, what: string, is: (tenant: Tenant) => boolean) => tenantIn(world, name, what, is);
const runsOn =
  (shard: string) =>
  ({ status }: Tenant) =>
    status.phase === "Running" && status.shard === shard && !status.move;

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
  const onKubernetes = new StoreClusterService(process.context, SETTINGS);
  const refusal = { code: "Conflict", message: expect.stringContaining("synapse.asTenantHook.enabled=false") };
  await expect(onKubernetes.updateTenant("clinic", { isolation: "dedicated" })).rejects.toMatchObject(refusal);
  const created = onKubernetes.createTenant({ name: "other", isolation: "dedicated" });
  await expect(created).rejects.toMatchObject(refusal);
  await onKubernetes.updateTenant("clinic", { isolation: "shared" });
});
