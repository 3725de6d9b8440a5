import { afterEach, expect, it } from "vitest";
import { ask, Bench, serving } from "./harness.ts";

let bench: Bench | undefined;
afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

it("tells a shard of a tenant that is over its budget, in place of whatever a client says", async () => {
  bench = await Bench.start([]);
  const origin = await bench.origin();
  const other = await bench.origin();
  await bench.controller.update([{ ...serving("a", origin), share: 0.5 }, serving("b", other)]);
  const headers = { "X-Synapse-Shards-Throttled": "a guess" };
  for (const host of ["a.example", "b.example"]) await ask(bench, host, { headers });
  const told = (seen: { headers: Record<string, unknown> }[]) =>
    seen.map((request) => request.headers["x-synapse-shards-throttled"]);
  expect(told(origin.seen)).toEqual(["1"]);
  expect(told(other.seen)).toEqual([undefined]);
  await bench.controller.update([serving("a", origin)]);
  await ask(bench, "a.example");
  expect(told(origin.seen).at(-1)).toBeUndefined();
});
