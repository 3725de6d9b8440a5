import { afterEach, beforeEach, expect, it } from "vitest";
import type { Tenant } from "../../../src/model/tenant.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { created, runController, SETTINGS, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";
import { until } from "../../support/patience.ts";

const MAS = "matrix_authentication_service: {enabled: true}\n";
const [FIRST, SECOND] = ["http://127.0.0.1:8090", "http://127.0.0.1:8091"];

let world: FakeWorld;
let run: Run;
let service: StoreClusterService;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  service = new StoreClusterService(run.process.context, { ...SETTINGS, leadsToAuthentication: true });
  await created(world, run, ["b"]);
  await service.createTenant({ name: "a", authenticationService: FIRST, config: MAS });
  await tenantWhen(world, "a", "runs", ({ status }) => status.phase === "Running");
});
afterEach(() => run.stop());
const told = () => run.process.context.feed.get("a")?.authentication;

it("tells gateways where a tenant's logins go, at once, also after a move, and of no other tenant", async () => {
  expect(told()).toBe("127.0.0.1:8090");
  expect(run.process.context.feed.get("b")).not.toHaveProperty("authentication");
  await service.updateTenant("a", { authenticationService: SECOND });
  expect(told()).toBe("127.0.0.1:8091");
  const move = await service.moveTenant("a");
  await tenantWhen(world, "a", "moved", ({ status }) => status.lastMove?.id === move.id);
  expect(told()).toBe("127.0.0.1:8091");
  await service.updateTenant("a", { authenticationService: null });
  expect(told()).toBeUndefined();
});

it("has logins go where what runs has its accounts, whatever is asked for", async () => {
  const inEffect = async () => (await service.getTenant("b")).status.inEffect?.hash;
  const toldOfB = () => run.process.context.feed.get("b")?.authentication;
  const refused = `${MAS}limit_profile_requests_to_users_who_share_rooms: soon\n`;
  world.wrongConfigs.add(refused);
  const before = await inEffect();
  await service.updateTenant("b", { authenticationService: FIRST, config: refused });
  await tenantWhen(world, "b", "is refused", ({ status }) => status.refusedConfig !== undefined);
  expect([toldOfB(), await inEffect()]).toEqual([undefined, before]);
  await service.updateTenant("b", { revertConfig: true });
  await tenantWhen(world, "b", "goes on", ({ status }) => status.refusedConfig === undefined);
  expect(toldOfB()).toBeUndefined();
  await service.updateTenant("b", { config: MAS });
  await tenantWhen(world, "b", "runs with it", ({ status }) => status.inEffect?.meaning.authenticationService === true);
  await until("it is told", toldOfB);
  expect(toldOfB()).toBe("127.0.0.1:8090");
});

it("starts a tenant again whose service is at another address, as its shard refuses that one until then", async () => {
  const { epoch, inEffect } = (await service.getTenant("a")).status;
  await service.updateTenant("a", { authenticationService: SECOND });
  const again = ({ status }: Tenant) => status.phase === "Running" && status.epoch > epoch;
  await tenantWhen(world, "a", "runs again", again);
  expect((await service.getTenant("a")).status.inEffect?.hash).not.toBe(inEffect?.hash);
});

it("is left alone by other changes, and is not taken from a template", async () => {
  await service.updateTenant("a", { labels: { ward: "1" } });
  expect(told()).toBe("127.0.0.1:8090");
  expect((await service.createTenant({ name: "c", fromTemplate: "a" })).spec).not.toHaveProperty(
    "authenticationService",
  );
});

it("refuses what is no address of one, and any where an Ingress leads there", async () => {
  const wrong = { code: "InvalidInput" };
  await expect(service.createTenant({ name: "d", authenticationService: "ftp://mas" })).rejects.toMatchObject(wrong);
  await expect(service.updateTenant("a", { authenticationService: "http://mas/x" })).rejects.toMatchObject(wrong);
  const elsewhere = { code: "Conflict", message: expect.stringContaining("docs/ess-helm.md") as string };
  await expect(run.service.createTenant({ name: "d", authenticationService: FIRST })).rejects.toMatchObject(elsewhere);
  await expect(run.service.updateTenant("a", { authenticationService: SECOND })).rejects.toMatchObject(elsewhere);
  expect(told()).toBe("127.0.0.1:8090");
});
