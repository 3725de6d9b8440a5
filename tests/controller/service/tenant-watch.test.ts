import { afterEach, beforeEach, expect, it } from "vitest";
import type { TenantChange } from "../../../src/controller/service/cluster-service.ts";
import { created, runController, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";
import { until } from "../../support/patience.ts";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  await created(world, run, ["a", "b"]);
});
afterEach(() => run.stop());

function watch(signal: AbortSignal) {
  const lines: string[] = [];
  const words = (change: TenantChange) => {
    if (change.type === "Synced") return "synced";
    return change.type === "Gone"
      ? `${change.name} gone`
      : `${change.tenant.metadata.name} ${change.tenant.status.phase}`;
  };
  const done = (async () => {
    for await (const change of run.service.watchTenants({ signal })) lines.push(words(change));
  })();
  return { lines, done };
}

it("begins with every tenant, tells each one's last state, and that it is gone, and ends when it is told to", async () => {
  const end = new AbortController();
  const { lines, done } = watch(end.signal);
  await until("all has been told", async () => lines.includes("synced"));
  expect(lines).toEqual(["a Running", "b Running", "synced"]);
  await run.service.sleepTenant("a");
  await until("a sleeps", async () => lines.at(-1) === "a Asleep");
  await run.service.deleteTenant("b", { purge: false });
  await until("b is gone", async () => lines.includes("b gone"));
  end.abort();
  await done;
  const told = lines.length;
  await run.service.wakeTenant("a");
  expect(lines.length).toBe(told);
});

it("keeps one change per tenant for a listener that does not listen, however often it changes", async () => {
  const end = new AbortController();
  const changes = run.service.watchTenants({ signal: end.signal })[Symbol.asyncIterator]();
  const next = async () => (await changes.next()).value as TenantChange;
  while ((await next()).type !== "Synced");
  for (const config of ["x: 1", "x: 2", "x: 3"]) await run.service.updateTenant("a", { config });
  await until("a runs with it", async () => (await run.service.getTenant("a")).status.observedGeneration === 4);
  const first = await next();
  expect(first).toMatchObject({ type: "Present", tenant: { spec: { config: "x: 3" } } });
  end.abort();
  expect((await changes.next()).done).toBe(true);
});
