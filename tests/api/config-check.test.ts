import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startApiUnderTest, type ApiUnderTest } from "./api-under-test.ts";

describe("a check of a configuration", () => {
  let api: ApiUnderTest;
  beforeEach(async () => {
    api = await startApiUnderTest();
    api.service.addTenant("clinic-a");
  });
  afterEach(() => api.close());

  const check = async (body: object, name = "clinic-a") => {
    const answer = await api.request(`/v1/tenants/${name}/config/check`, {
      method: "POST",
      body: JSON.stringify(body),
    });
    return [answer.status, await answer.json()];
  };

  test("answers with a verdict, and changes nothing", async () => {
    expect(await check({ config: "listeners: []" })).toEqual([
      200,
      { verdict: "Refused", reason: "OptionNotAllowed", message: "listeners is not a tenant's to set", warnings: [] },
    ]);
    expect(await check({ config: "" })).toEqual([200, { verdict: "Accepted", warnings: [] }]);
    expect(api.service.tenants.get("clinic-a")?.spec.config).toBe("");
  });

  test.each([
    [{}, "clinic-a", 422],
    [{ config: 5 }, "clinic-a", 422],
    [{ config: "", release: "1.164.0" }, "clinic-a", 422],
    [{ config: "" }, "nobody", 404],
  ])("refuses %j of %s with %d", async (body, name, status) => {
    const [got] = await check(body, name);
    expect(got).toBe(status);
  });
});
