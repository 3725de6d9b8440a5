import { afterEach, beforeEach, expect, it } from "vitest";
import { Planning } from "../../../src/controller/planning/planning.ts";
import { modify } from "../../../src/ports/store.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { STATUS } from "../../ports/store-contract.ts";

const SHARD = { phase: "Ready", reason: "", message: "", failures: 0 } as const;
const RELEASE = "1.163.2";

let world: FakeWorld;
let process: FakeProcess;
let planning: Planning;
beforeEach(async () => {
  world = new FakeWorld();
  process = new FakeProcess(world, { policy: { maxTenantsPerShard: 1, maxShardsPerSynapseImageTag: 2 } });
  planning = new Planning(process.context, process.context.reader);
  await process.context.reader.open();
});
afterEach(() => process.kill());

const shard = (name: string, drain?: "Consolidation" | "Requested") =>
  world.store.create("Shard", name, { release: RELEASE, ...(drain ? { drain } : {}) }, SHARD);
const tenant = (name: string, on?: string) =>
  world.store.create(
    "Tenant",
    name,
    { serverName: `${name}.example`, release: RELEASE, config: "", reclaimPolicy: "Retain" },
    { ...STATUS, ...(on === undefined ? {} : { phase: "Running", shard: on, epoch: 1, provisioned: true }) },
  );

/** Lets something happen to a shard after the plan was made, and before it is carried out. */
function meanwhile(change: () => Promise<unknown>): void {
  let isDone = false;
  world.fault = (call) => {
    if (call === "get" && !isDone) {
      isDone = true;
      void change();
    }
    return undefined;
  };
}

it("does not call off a drain that somebody has asked for since the plan was made", async () => {
  await shard(`${RELEASE}-0`);
  await tenant("a", `${RELEASE}-0`);
  await shard(`${RELEASE}-1`, "Consolidation");
  await tenant("b", `${RELEASE}-1`);
  meanwhile(() => modify(world.store, "Shard", `${RELEASE}-1`, ({ spec }) => void (spec.drain = "Requested")));
  await planning.pass();
  expect((await world.store.get("Shard", `${RELEASE}-1`))?.spec.drain).toBe("Requested");
});

it("does not stop a shard that a tenant has been given since the plan was made", async () => {
  await shard(`${RELEASE}-0`, "Requested");
  meanwhile(() => tenant("a", `${RELEASE}-0`));
  await planning.pass();
  expect((await world.store.get("Shard", `${RELEASE}-0`))?.metadata.deletionTimestamp).toBeUndefined();
});
