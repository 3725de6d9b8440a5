import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { atEachCall, created, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";
import { runController } from "../../support/controller-run.ts";
import { asleep, isAsleep, QUIET, runWith } from "./sleep-world.ts";

/** A tenant on a shard, or asleep, and no controller. */
async function worldWith(state: "awake" | "asleep", release?: string): Promise<FakeWorld> {
  const world = new FakeWorld();
  const run = runWith(world, {});
  await created(world, run, ["a"], release);
  if (state === "asleep") await asleep(world, run, "a");
  await run.stop();
  return world;
}

/** Does something with a controller that is killed at a call, and ends it with the next one. @returns whether the first came through */
async function interrupted(
  world: FakeWorld,
  killAtCall: number,
  begin: (run: Run) => Promise<unknown>,
  isDone: Parameters<typeof tenantWhen>[3],
): Promise<{ survived: boolean; second: Run }> {
  const first = runController(world, { killAtCall, policy: { hibernation: QUIET } });
  await Promise.race([begin(first).catch(() => {}), first.process.whenKilled]);
  const survived = await Promise.race([
    first.process.whenKilled.then(() => false),
    tenantWhen(world, "a", "done", isDone).then(
      () => true,
      () => false,
    ),
  ]);
  first.process.kill();
  return { survived, second: runWith(world, {}) };
}

/** A controller that has just begun has not asked the shard yet. */
async function putToSleep({ service, process }: Run): Promise<void> {
  while (!process.killed) {
    try {
      await service.sleepTenant("a");
      return;
    } catch {
      await sleep(5);
    }
  }
}

it("falls asleep or stays awake, and is nobody's or one shard's, whatever call the controller is killed at", async () => {
  const ended = { asleep: 0, awake: 0 };
  const killed = await atEachCall(async (call) => {
    const world = await worldWith("awake");
    const { survived, second } = await interrupted(world, call, putToSleep, isAsleep);
    const { status } = await tenantWhen(world, "a", "settled", (t) => isAsleep(t) || runs(t));
    const owners = status.phase === "Asleep" ? [] : [status.shard];
    await expect.poll(() => world.ownersOf("a")).toEqual(owners);
    ended[status.phase === "Asleep" ? "asleep" : "awake"] += 1;
    // Neither is an end of the way: whoever wants it has it.
    await second.service.wakeTenant("a");
    const awake = await tenantWhen(world, "a", "awake", runs);
    await expect.poll(() => world.ownersOf("a")).toEqual([awake.status.shard]);
    await second.stop();
    return survived ? "done" : "interrupted";
  });
  expect(killed).toBeGreaterThan(10);
  expect(ended.asleep).toBeGreaterThan(5);
  expect(ended.awake).toBeGreaterThan(5);
}, 120_000);

it("wakes, with one owner, whatever call the controller is killed at; a gateway asks again where it was not heard", async () => {
  const killed = await atEachCall(async (call) => {
    const world = await worldWith("asleep");
    const wish = { tenant: "a", reason: "request" as const };
    const { survived, second } = await interrupted(world, call, (run) => run.service.wakeTenants([wish]), runs);
    await second.service.wakeTenants([wish]);
    const { status } = await tenantWhen(world, "a", "awake", runs);
    await expect.poll(() => world.ownersOf("a")).toEqual([status.shard]);
    expect(status.wake ?? status.sleep).toBeUndefined();
    expect(status.awake?.reason).toBe("request");
    await second.stop();
    return survived ? "done" : "interrupted";
  });
  expect(killed).toBeGreaterThan(10);
}, 120_000);

it("is brought to another release in its sleep whatever call the controller is killed at", async () => {
  const killed = await atEachCall(async (call) => {
    const world = await worldWith("asleep", "1.157.2");
    const upgrade = (run: Run) => run.service.updateTenant("a", { release: "1.163.2" });
    const isPrepared: Parameters<typeof tenantWhen>[3] = ({ status }) => status.schemaRelease === "1.163.2";
    const { survived, second } = await interrupted(world, call, upgrade, isPrepared);
    await upgrade(second);
    await tenantWhen(world, "a", "prepared", (t) => isPrepared(t) && isAsleep(t));
    expect(world.log.filter((line) => line.startsWith("start a"))).toHaveLength(1);
    expect(world.ownersOf("a")).toEqual([]);
    await second.stop();
    return survived ? "done" : "interrupted";
  });
  expect(killed).toBeGreaterThan(10);
}, 120_000);
