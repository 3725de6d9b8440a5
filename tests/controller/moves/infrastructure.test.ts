import { afterEach, beforeEach, expect, it } from "vitest";
import { UserError } from "../../../src/model/errors.ts";
import { newTenantStatus, type Tenant } from "../../../src/model/tenant.ts";
import { created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";
import { DEFAULT_ROLLOUT, newFleetStatus } from "../../../src/model/fleet.ts";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world, { policy: { maxTenantsPerShard: 1 } });
  await created(world, run, ["a", "b"]);
});
afterEach(() => run.stop());

const AWAY = new UserError("Unavailable", "the API server does not answer");

/** Lets a call fail for a while from its first time on, in the middle of a move. */
function failFor(milliseconds: number, isIt: (call: string, args: readonly unknown[]) => boolean, error: Error): void {
  let since: number | undefined;
  world.fault = (call, args) => {
    if (!isIt(call, args)) return undefined;
    since ??= Date.now();
    return Date.now() - since < milliseconds ? error : undefined;
  };
}

const isMoving = (tenant: unknown, step: string) => (tenant as Tenant | undefined)?.status?.move?.step === step;
const arrived = (t: Tenant) => runs(t) && t.status.lastMove?.outcome === "Succeeded";

it.each(["Parking", "Draining", "Starting", "Releasing"])(
  "retries a move when the store's write of the step %s fails for a while, and holds it against nobody",
  async (step) => {
    failFor(700, (call, [tenant]) => call === "update" && isMoving(tenant, step), AWAY);
    await run.service.moveTenant("a");
    const { status } = await tenantWhen(world, "a", "moved", arrived);
    expect(status).toMatchObject({ failures: 0, moveFailures: 0, reason: "" });
  },
);

it("retries it when the controller's own connection to the database fails for a while", async () => {
  await run.service.updateTenant("a", { release: "1.164.0" });
  failFor(700, (call) => call === "describe", new UserError("Unavailable", "PostgreSQL at h:1 does not answer"));
  const { status } = await tenantWhen(world, "a", "upgraded", arrived);
  expect(status).toMatchObject({ shard: "1.164.0-0", moveFailures: 0 });
});

it("leaves a tenant Starting, not Failed, when the cluster's database is away, and starts it when that is back", async () => {
  world.failingStarts.set("*", { code: "DatabaseUnreachable", message: "PostgreSQL at h:1 does not answer" });
  const { shard } = (await world.store.get("Tenant", "a"))!.status;
  world.shards.get(shard!)!.tenants.delete("a");
  const waiting = await tenantWhen(world, "a", "said why", ({ status }) => status.reason === "DatabaseUnreachable");
  expect(waiting.status).toMatchObject({ phase: "Starting", message: "PostgreSQL at h:1 does not answer" });
  world.failingStarts.clear();
  const { status } = await tenantWhen(world, "a", "runs again", runs);
  expect(status).toMatchObject({ reason: "", failures: 0 });
});

it("counts it as the tenant's failure when the database that it brings along is away", async () => {
  const config = "database: {name: psycopg2, args: {host: theirs.example, user: u, password: p, dbname: d}}";
  world.failingStarts.set("*", {
    code: "DatabaseUnreachable",
    message: "PostgreSQL at theirs.example does not answer",
  });
  await run.service.createTenant({ name: "c", config });
  const { status } = await tenantWhen(world, "c", "failed", (t) => t.status.phase === "Failed");
  expect(status.reason).toBe("DatabaseUnreachable");
});

it("counts it as the tenant's failure when its release cannot start it", async () => {
  world.failingStarts.set("1.164.0-0", { code: "StartFailed", message: "a bug of that release" });
  await run.service.updateTenant("a", { release: "1.164.0" });
  const { status } = await tenantWhen(
    world,
    "a",
    "rolled back",
    (t) => runs(t) && t.status.lastMove?.outcome === "RolledBack",
  );
  expect(status.moveFailures).toBe(1);
});

it("halts a rollout for a move that was rolled back, and not for an interrupted one", async () => {
  const outcome = async () => (await world.store.get("Tenant", "f"))?.status.lastMove?.outcome;
  const phase = async () => (await world.store.get("Fleet", "fleet"))?.status.phase;
  const rollout = { ...DEFAULT_ROLLOUT, soakSeconds: 0 };
  await world.store.create("Fleet", "fleet", { release: "1.163.2", rollout }, newFleetStatus());
  const spec = { serverName: "f.example", release: "", config: "", reclaimPolicy: "Retain" as const };
  await world.store.create("Tenant", "f", spec, newTenantStatus());
  await tenantWhen(world, "f", "runs", runs);
  await expect.poll(phase).toBe("Idle");
  world.failingStarts.set("1.164.0-0", { code: "DatabaseUnreachable", message: "PostgreSQL at h:1 does not answer" });
  const fleet = (await world.store.get("Fleet", "fleet"))!;
  fleet.spec.release = "1.164.0";
  await world.store.update(fleet);
  await expect.poll(outcome).toBe("Interrupted");
  expect(await phase()).toBe("Canary");
  const interrupted = (await world.store.get("Tenant", "f"))!;
  expect(interrupted.status.moveFailures ?? 0).toBe(0);
  world.failingStarts.set("1.164.0-0", { code: "StartFailed", message: "a bug of that release" });
  delete interrupted.status.moveNotBefore;
  await world.store.update(interrupted);
  await expect.poll(phase).toBe("Halted");
});
