import { expect, test } from "vitest";
import { occupancyOf } from "../../src/model/occupancy.ts";
import type { Shard } from "../../src/model/shard.ts";
import type { Tenant } from "../../src/model/tenant.ts";

const POLICY = { maxShardsPerSynapseImageTag: 2, maxTenantsPerShard: 2 };
const shard = (name: string, release: string) => ({ metadata: { name }, spec: { release } }) as Shard;
const tenant = (name: string, on?: string) => ({ metadata: { name }, status: { shard: on } }) as Tenant;

test("saturated is a release whose shards are all there and all full", () => {
  const shards = [shard("2-0", "2"), shard("1-1", "1"), shard("1-0", "1")];
  const tenants = [tenant("d", "1-1"), tenant("a", "1-0"), tenant("c", "1-1"), tenant("w"), tenant("b", "2-0")];
  const { tenantsOf, tags } = occupancyOf(shards, [...tenants, tenant("gone", "9-9")], POLICY);
  expect(Object.fromEntries(tenantsOf)).toEqual({ "1-0": ["a"], "1-1": ["c", "d"], "2-0": ["b"], "9-9": ["gone"] });
  expect(tags).toEqual([
    { version: "1", shards: 2, tenants: 3, capacity: 4, saturated: false },
    { version: "2", shards: 1, tenants: 1, capacity: 4, saturated: false },
  ]);
  const full = occupancyOf(shards, [...tenants, tenant("e", "1-0")], POLICY).tags;
  expect(full.map(({ saturated }) => saturated)).toEqual([true, false]);
});

test("a release is not full while another shard of it may be made", () => {
  const { tags } = occupancyOf([shard("2-0", "2")], [tenant("a", "2-0"), tenant("b", "2-0")], POLICY);
  expect(tags).toEqual([{ version: "2", shards: 1, tenants: 2, capacity: 4, saturated: false }]);
});
