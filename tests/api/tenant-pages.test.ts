import { expect, test } from "vitest";
import { TenantPages, TenantsQuery } from "../../src/api/tenant-pages.ts";
import { MemoryService } from "./memory-service.ts";

function world() {
  const service = new MemoryService();
  const add = (name: string, phase: "Running" | "Asleep" | "Failed", shard?: string) =>
    service.addTenant(name, { phase, ...(shard === undefined ? {} : { shard }) });
  add("clinic-a", "Running", "1.163.2-1");
  add("clinic-b", "Asleep");
  add("clinic-c", "Running", "1.163.2-0");
  add("school", "Failed").spec.labels = { plan: "small" };
  let listed = 0;
  let now = 0;
  const pages = new TenantPages(
    async () => {
      listed += 1;
      return service.listTenants();
    },
    () => now,
  );
  const ask = async (asked: Record<string, string>) => {
    const { tenants, total } = await pages.page(TenantsQuery.parse(asked));
    return [tenants.map(({ metadata }) => metadata.name).join(" "), total];
  };
  return { service, ask, listed: () => listed, pass: (ms: number) => (now += ms) };
}

test("a page is a window onto what is found, with how much there is", async () => {
  const { ask } = world();
  expect(await ask({})).toEqual(["clinic-a clinic-b clinic-c school", 4]);
  expect(await ask({ limit: "2" })).toEqual(["clinic-a clinic-b", 4]);
  expect(await ask({ limit: "2", offset: "3" })).toEqual(["school", 4]);
  expect(await ask({ limit: "0" })).toEqual(["", 4]);
  expect(await ask({ limit: "2", offset: "9" })).toEqual(["", 4]);
});

test("tenants are found by name, phase, shard, release and labels together", async () => {
  const { ask } = world();
  expect(await ask({ search: " CLINIC-B" })).toEqual(["clinic-b", 1]);
  expect(await ask({ search: "localhost", phase: "Asleep,Failed" })).toEqual(["clinic-b school", 2]);
  expect(await ask({ shard: "1.163.2-0" })).toEqual(["clinic-c", 1]);
  expect(await ask({ release: "1.157.2" })).toEqual(["", 0]);
  expect(await ask({ selector: "plan=small", phase: "Failed" })).toEqual(["school", 1]);
  expect(TenantsQuery.safeParse({ phase: "Running,Sleeping" }).success).toBe(false);
});

test("they are sorted by any column, equals by name, both ways", async () => {
  const { ask } = world();
  expect(await ask({ sort: "shard" })).toEqual(["clinic-b school clinic-c clinic-a", 4]);
  expect(await ask({ sort: "phase", order: "descending" })).toEqual(["clinic-a clinic-c school clinic-b", 4]);
});

test("who scrolls does not have all of them sorted again for each page, and sees changes within a second", async () => {
  const { service, ask, listed, pass } = world();
  await ask({ limit: "1" });
  await ask({ limit: "1", offset: "1" });
  expect(listed()).toBe(1);
  service.addTenant("annex");
  pass(1_000);
  expect(await ask({ limit: "1" })).toEqual(["annex", 5]);
});
