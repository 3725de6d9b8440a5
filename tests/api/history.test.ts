import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { History } from "../../src/model/history.ts";
import { startApiUnderTest, type ApiUnderTest } from "./api-under-test.ts";

describe("how the cluster was", () => {
  let api: ApiUnderTest;
  beforeEach(async () => {
    api = await startApiUnderTest();
    api.service.addShard("1.163.2-0");
    const at = Math.floor(Date.now() / 60_000) * 60_000 - 60_000;
    api.service.samples.push({ at, count: 1, values: { running: 3, load: 0.5, "shard/1.163.2-0/load": 0.25 } });
  });
  afterEach(() => api.close());

  test.each([
    ["", 300, ["load", "running"]],
    ["?range=hour", 60, ["load", "running"]],
    ["?range=hour&shard=1.163.2-0", 60, ["load"]],
  ])("is answered as series of equal length for %j", async (query, step, names) => {
    const response = await api.request(`/v1/history${query}`);
    expect(response.status).toBe(200);
    const { series, stepSeconds } = (await response.json()) as History;
    expect(stepSeconds).toBe(step);
    expect(series.map(({ name }) => name)).toEqual(names);
    expect(new Set(series.map(({ values }) => values.length)).size).toBe(1);
    expect(series[0]!.values.filter((value) => value !== null)).toEqual([query.includes("shard") ? 0.25 : 0.5]);
  });

  test.each([
    ["?range=decade", 422],
    ["?shard=..%2F", 422],
    ["?shard=1.163.2-9", 404],
  ])("refuses %j with %d", async (query, status) => {
    const response = await api.request(`/v1/history${query}`);
    expect(response.status).toBe(status);
  });
});
