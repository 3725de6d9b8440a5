import { beforeEach, expect, it, vi } from "vitest";
import type { ControllerContext } from "../../../src/controller/context.ts";
import { CachedReader } from "../../../src/controller/cached-reader.ts";
import { FleetRollout } from "../../../src/controller/planning/fleet-rollout.ts";
import { DEFAULT_ROLLOUT, newFleetStatus } from "../../../src/model/fleet.ts";
import { newTenantStatus } from "../../../src/model/tenant.ts";
import { LocalStore } from "../../../src/platforms/local/store/local-store.ts";
import { modify } from "../../../src/ports/store.ts";

const RELEASE = "1.163.2";
let store: LocalStore;
let fleet: FleetRollout;
/** Each look at whether a tenant follows the fleet takes a second of it. */
let now: number;
let looks: number;

async function make(name: string, fleetRelease?: string): Promise<void> {
  const spec = { serverName: `${name}.example`, release: "", config: "", reclaimPolicy: "Retain" as const };
  const status = {
    ...newTenantStatus(),
    phase: "Asleep" as const,
    schemaRelease: RELEASE,
    ...(fleetRelease ? { fleetRelease } : {}),
  };
  await store.create("Tenant", name, spec, status);
}
const releaseOf = async (name: string) => (await store.get("Tenant", name))?.status.fleetRelease;
const touch = (name: string) => modify(store, "Tenant", name, ({ status }) => void (status.epoch += 1));

beforeEach(async () => {
  [now, looks] = [1_000_000, 0];
  store = new LocalStore(":memory:");
  const reader = new CachedReader(store);
  const blockingConflictOf = () => {
    [now, looks] = [now + 1_000, looks + 1];
    return undefined;
  };
  const clock = { now: () => now, wall: () => now, past: () => 0, until: () => 0, age: () => 0 };
  const parts = { store, reader, clock, claims: { blockingConflictOf } };
  fleet = new FleetRollout(parts as unknown as ControllerContext, reader);
  await make("a", RELEASE);
  await store.create("Fleet", "fleet", { release: RELEASE, rollout: DEFAULT_ROLLOUT }, newFleetStatus());
  await reader.open();
  // Until it says that nothing is left to do.
  for (let passes = 0; passes < 5; passes++) {
    await fleet.pass();
    now += 3_600_000;
  }
});

it("is at rest before these tests", async () => {
  expect((await store.get("Fleet", "fleet"))?.status.phase).toBe("Idle");
});

it("looks through all tenants again only after a pause, where one changed that has its release", async () => {
  await touch("a");
  await fleet.pass();
  looks = 0;
  await touch("a");
  await fleet.pass();
  expect(looks).toBe(0);
  now += 20_000;
  await fleet.pass();
  expect(looks).toBe(1);
});

it("gives a newcomer its release at once", async () => {
  await touch("a");
  await fleet.pass();
  await make("b");
  await fleet.pass();
  expect(await releaseOf("b")).toBe(RELEASE);
});

it("begins a rollout at once", async () => {
  await touch("a");
  await fleet.pass();
  await modify(store, "Fleet", "fleet", ({ spec }) => void (spec.release = "1.164.0"));
  await fleet.pass();
  expect(await releaseOf("a")).toBe("1.164.0");
});

// Guards against: a newcomer that has no release until somebody changes it, since the pass that was to give it one could not write.
it("gives a newcomer its release at the next pass, where the store failed at the first", async () => {
  await make("b");
  const broken = vi.spyOn(store, "update").mockRejectedValueOnce(new Error("the store is away"));
  await expect(fleet.pass()).rejects.toThrow("the store is away");
  broken.mockRestore();
  await fleet.pass();
  expect(await releaseOf("b")).toBe(RELEASE);
});
