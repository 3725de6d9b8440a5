import { expect, it } from "vitest";
import { GatewayCounts } from "../../../src/controller/usage/gateway-counts.ts";

const said = (gateway: string, all: boolean, requests: Record<string, [epoch: number, requests: number]>) => ({
  gateway,
  all,
  tenants: Object.fromEntries(
    Object.entries(requests).map(([tenant, [epoch, count]]) => [tenant, { epoch, requests: count }]),
  ),
});

it("adds up what several gateways say, each of which may say it twice", () => {
  const counts = new GatewayCounts();
  for (const gateway of ["g", "h"]) expect(counts.heard(said(gateway, true, {}))).toEqual({});
  expect(counts.heard(said("g", false, { a: [1, 5] }))["a"]).toMatchObject({ epoch: 1, requests: 5, cpuSeconds: 0 });
  expect(counts.heard(said("h", false, { a: [1, 2] }))["a"]?.requests).toBe(7);
  expect(counts.heard(said("g", false, { a: [1, 5] }))["a"]?.requests).toBe(7);
  expect(counts.heard(said("g", true, { a: [1, 6] }))["a"]?.requests).toBe(8);
});

it("counts nothing again that an earlier controller may have counted", () => {
  const counts = new GatewayCounts();
  // Sent to the one before.
  expect(counts.heard(said("g", false, { b: [1, 9] }))).toEqual({});
  expect(counts.heard(said("g", true, { a: [1, 100], b: [1, 9] }))).toEqual({});
  expect(counts.heard(said("g", false, { a: [1, 101] }))["a"]?.requests).toBe(1);
  expect(counts.heard(said("g", false, { c: [1, 3] }))["c"]?.requests).toBe(3);
});

it("counts nothing again of a tenant that a later word about all tells of for the first time", () => {
  const counts = new GatewayCounts();
  counts.heard(said("g", true, {}));
  // It was not dedicated when this controller first heard of the gateway.
  expect(counts.heard(said("g", true, { a: [1, 100] }))).toEqual({});
  expect(counts.heard(said("g", false, { a: [1, 103] }))["a"]?.requests).toBe(3);
});

it("begins again with each epoch, as another run, and takes no late word of an earlier one", () => {
  const counts = new GatewayCounts();
  counts.heard(said("g", true, {}));
  counts.heard(said("h", true, {}));
  const first = counts.heard(said("g", false, { a: [1, 5] }))["a"];
  const second = counts.heard(said("g", false, { a: [2, 1] }))["a"];
  expect(second).toMatchObject({ epoch: 2, requests: 1 });
  expect(second?.run).not.toBe(first?.run);
  expect(counts.heard(said("h", false, { a: [1, 7] }))).toEqual({});
  counts.forget("a");
  expect(counts.heard(said("h", false, { a: [1, 2] }))["a"]?.requests).toBe(2);
});
