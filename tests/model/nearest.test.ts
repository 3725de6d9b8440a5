import { expect, it } from "vitest";
import { nearest } from "../../src/model/nearest.ts";

it.each([
  ["prot", ["host", "port"], "port"],
  ["maxTenantPerShard", ["maxShardsPerSynapseImageTag", "maxTenantsPerShard"], "maxTenantsPerShard"],
  ["clinic-aa", ["clinic-b", "clinic-a"], "clinic-a"],
  ["entirely-else", ["port", "host"], undefined],
  ["x", [], undefined],
])("finds what %j most likely meant", (word, candidates, meant) => {
  expect(nearest(word, candidates)).toBe(meant);
});
