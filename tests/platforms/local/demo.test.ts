import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { ControllerApi } from "../../../src/platforms/local/up/controller-api.ts";
import { ensureDemo } from "../../../src/platforms/local/up/demo.ts";
import { API_TOKEN, startApiUnderTest } from "../../api/api-under-test.ts";
import { temporaryDirectory } from "./support.ts";

async function demo() {
  const under = await startApiUnderTest();
  const api = new ControllerApi(under.url, API_TOKEN);
  onTestFinished(async () => {
    await api.close();
    await under.close();
  });
  under.service.onCreate = (tenant) => under.service.run(tenant, "1.163.2-0");
  const record = join(await temporaryDirectory(), "demo-tenants.json");
  const ensure = async () => {
    const made = await ensureDemo(
      api,
      { password: "twelve-letters", record },
      { onProgress: () => {}, signal: new AbortController().signal },
    );
    return made.map(({ name }) => name);
  };
  return { service: under.service, ensure };
}

test("an example tenant that was deleted stays deleted", async () => {
  const { service, ensure } = await demo();
  expect(await ensure()).toEqual(["clinic-a", "clinic-b", "clinic-c"]);
  service.tenants.delete("clinic-b");
  expect(await ensure()).toEqual(["clinic-a", "clinic-c"]);
  service.tenants.clear();
  expect(await ensure()).toEqual([]);
  expect(service.tenants.size).toBe(0);
});

test("examples of an earlier version count as made", async () => {
  const { service, ensure } = await demo();
  service.run(service.addTenant("clinic-c"), "1.163.2-0");
  expect(await ensure()).toEqual(["clinic-c"]);
});

test("examples are made beside the tenants of a user", async () => {
  const { service, ensure } = await demo();
  service.run(service.addTenant("mine"), "1.163.2-0");
  expect(await ensure()).toEqual(["clinic-a", "clinic-b", "clinic-c"]);
});
