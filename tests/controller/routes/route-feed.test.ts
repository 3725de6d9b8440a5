import { expect, it } from "vitest";
import { RouteFeed } from "../../../src/controller/routes/route-feed.ts";
import { SteadyClock } from "../../../src/model/clock.ts";
import type { Route, RouteFeedLine } from "../../../src/model/routes.ts";
import { FakeTime } from "../../support/fake-clock.ts";

const route = (tenant: string, state: Route["state"], address?: string): Route => ({
  tenant,
  hosts: [`${tenant}.example`],
  state,
  address,
  epoch: 1,
});

async function read(lines: AsyncIterator<RouteFeedLine>): Promise<RouteFeedLine> {
  return (await lines.next()).value as RouteFeedLine;
}

it("begins a stream with all routes, then tells each change", async () => {
  const feed = new RouteFeed();
  feed.publish(route("a", "serving", "127.0.0.1:1"));
  const stream = feed.subscribe("g1");
  const lines = stream[Symbol.asyncIterator]();
  expect(await read(lines)).toMatchObject({ type: "snapshot", version: 1, routes: [{ tenant: "a" }] });
  feed.publish(route("a", "parked"));
  feed.publish(route("a", "parked"));
  feed.remove("a");
  expect(await read(lines)).toMatchObject({ type: "update", version: 2, routes: [{ state: "parked" }] });
  expect(await read(lines)).toMatchObject({ type: "update", version: 3, removed: ["a"] });
  stream.close();
});

it("waits for every gateway's word before a move drains, and not forever", async () => {
  const feed = new RouteFeed();
  const [one, two] = [feed.subscribe("g1"), feed.subscribe("g2")];
  const version = feed.publish(route("a", "parked"));
  feed.acknowledge({ gateway: "g1", version, parks: {} });
  expect(await feed.settled(version, 30)).toBe(false);
  const settled = feed.settled(version, 5_000);
  feed.acknowledge({ gateway: "g2", version, parks: {} });
  expect(await settled).toBe(true);
  const next = feed.publish(route("a", "serving", "127.0.0.1:2"));
  const afterLeaving = feed.settled(next, 5_000);
  feed.acknowledge({ gateway: "g1", version: next, parks: {} });
  two.close();
  expect(await afterLeaving).toBe(true);
  one.close();
  expect(await feed.settled(feed.publish(route("a", "parked")), 5_000)).toBe(true);
});

it("adds up the parked and failed requests of all gateways once", () => {
  const feed = new RouteFeed();
  feed.publish(route("a", "parked"));
  feed.acknowledge({
    gateway: "g1",
    version: 1,
    parks: { a: { parked: 3, failed: 0 }, unknown: { parked: 9, failed: 9 } },
  });
  feed.acknowledge({ gateway: "g2", version: 1, parks: { a: { parked: 2, failed: 1 } } });
  expect(feed.takeParkCount("a")).toEqual({ parked: 5, failed: 1 });
  expect(feed.takeParkCount("a")).toEqual({ parked: 0, failed: 0 });
  expect(feed.takeParkCount("unknown")).toEqual({ parked: 0, failed: 0 });
});

it("puts each shard's secret into the routes of its tenants, also those that are told already, and into no others", async () => {
  const feed = new RouteFeed();
  const of = (tenant: string, shard?: string): Route => ({ ...route(tenant, "serving", "127.0.0.1:1"), shard });
  for (const each of [of("a", "s-0"), of("b", "s-1"), of("c")]) feed.publish(each);
  const lines = feed.subscribe("g1")[Symbol.asyncIterator]();
  await read(lines);
  feed.setSecret("s-0", "one");
  expect(await read(lines)).toMatchObject({ type: "update", routes: [{ tenant: "a", secret: "one" }], removed: [] });
  const { version } = feed;
  feed.setSecret("s-0", "one");
  expect([feed.version, feed.publish(of("a", "s-0"))]).toEqual([version, version]);
  feed.publish({ ...of("a", "s-0"), epoch: 2 });
  expect(await read(lines)).toMatchObject({ routes: [{ tenant: "a", epoch: 2, secret: "one" }] });
  feed.setSecret("s-0", "two");
  expect(await read(lines)).toMatchObject({ routes: [{ tenant: "a", epoch: 2, secret: "two" }] });
  expect(["b", "c"].map((tenant) => feed.get(tenant)?.secret)).toEqual([undefined, undefined]);
  feed.close();
});

it("takes no word for a stream that has ended: what a gateway acted on before it connected again says nothing of the present stream", async () => {
  const feed = new RouteFeed();
  const old = feed.subscribe("g1");
  const before = await read(old[Symbol.asyncIterator]());
  old.close();
  const present = feed.subscribe("g1");
  const now = await read(present[Symbol.asyncIterator]());
  const version = feed.publish(route("a", "parked"));
  const streamOf = (line: RouteFeedLine) => (line.type === "snapshot" ? line.stream : undefined);
  expect(streamOf(before)).not.toBe(streamOf(now));
  feed.acknowledge({ gateway: "g1", stream: streamOf(before), version, parks: {} });
  expect(await feed.settled(version, 20)).toBe(false);
  // Of another controller, whose versions are higher.
  feed.acknowledge({ gateway: "g1", version: version + 900, parks: {} });
  expect(await feed.settled(version, 20)).toBe(false);
  feed.acknowledge({ gateway: "g1", stream: streamOf(now), version, parks: {} });
  expect(await feed.settled(version, 20)).toBe(true);
});

it("tells since when no gateway was there, where the first that comes is another run than any before", () => {
  const time = new FakeTime();
  const clock = new SteadyClock(time);
  const feed = new RouteFeed(clock);
  const returns: number[] = [];
  feed.onReturn((since) => returns.push(clock.now() - since));
  const [one, two] = [feed.subscribe("run-1"), feed.subscribe("run-2")];
  one.close();
  time.pass(100_000);
  two.close();
  time.pass(70_000);
  const three = feed.subscribe("run-3");
  feed.subscribe("run-4").close();
  expect(returns).toEqual([70_000]);
  three.close();
  time.pass(80_000);
  // It was cut off from here, and served meanwhile.
  feed.subscribe("run-1").close();
  expect(returns).toEqual([70_000]);
});
