import { afterEach, beforeEach, expect, test } from "vitest";
import { UserError } from "../../src/model/errors.ts";
import type { RouteFeedLine } from "../../src/model/routes.ts";
import { type ApiUnderTest, GATEWAY_TOKEN, startApiUnderTest } from "./api-under-test.ts";

let api: ApiUnderTest;
beforeEach(async () => {
  api = await startApiUnderTest();
  api.service.addShard("1.163.2-0");
  api.service.run(api.service.addTenant("clinic-a"), "1.163.2-0");
});
afterEach(() => api.close());

/** Reads a stream line by line; `leave` breaks the connection as a client that goes away does. */
async function open(path: string, token?: string) {
  const client = new AbortController();
  const response = await api.request(path, { signal: client.signal, ...(token === undefined ? {} : { token }) });
  expect(response.status).toBe(200);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  return {
    response,
    leave: () => client.abort(),
    /** The next line, or undefined at the end. */
    async line(): Promise<string | undefined> {
      while (!rest.includes("\n")) {
        const { done, value } = await reader.read();
        if (done) return undefined;
        rest += value;
      }
      const [line = "", ...more] = rest.split("\n");
      rest = more.join("\n");
      return line;
    },
  };
}

const EVENT = { type: "Normal", reason: "Moved", object: "Tenant/clinic-a", message: "moved" } as const;

test("sends a followed stream's headers before its first line", async () => {
  const stream = await open("/v1/events?follow=true");
  expect(stream.response.headers.get("content-type")).toBe("application/x-ndjson");
  api.service.addEvent(EVENT);
  expect(JSON.parse((await stream.line())!)).toMatchObject({ id: 1, ...EVENT });
  api.service.addEvent({ ...EVENT, reason: "Failed" });
  expect(JSON.parse((await stream.line())!)).toMatchObject({ id: 2, reason: "Failed" });
  stream.leave();
});

test("sends only the events asked for", async () => {
  for (const object of ["Tenant/clinic-a", "Tenant/clinic-b", "Tenant/clinic-a"])
    api.service.addEvent({ ...EVENT, object });
  const text = await (await api.request("/v1/events?after=1&object=Tenant/clinic-a")).text();
  expect(
    text
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { id: number }).id),
  ).toEqual([3]);
});

test("a browser that was cut off gets what it missed, and goes on", async () => {
  for (const reason of ["Created", "Moved", "Failed"]) api.service.addEvent({ ...EVENT, reason });
  const headers = { accept: "text/event-stream", "last-event-id": "2" };
  const client = new AbortController();
  const response = await api.request("/v1/events?follow=true&after=1", { headers, signal: client.signal });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const upTo = async (id: number) => {
    while (!text.includes(`id: ${id}\n`)) text += (await reader.read()).value ?? "";
  };
  await upTo(3);
  api.service.addEvent({ ...EVENT, reason: "Deleted" });
  await upTo(4);
  client.abort();
  const frames = text.trim().split("\n\n");
  expect(frames.map((frame) => frame.split("\n", 1)[0])).toEqual(["id: 3", "id: 4"]);
  expect(JSON.parse(frames[1]!.split("\ndata: ")[1]!)).toMatchObject({ id: 4, reason: "Deleted" });
});

test("stops producing when the client leaves", async () => {
  const streams = [
    await open("/v1/events?follow=true"),
    await open("/v1/tenants/clinic-a/logs?follow=true"),
    await open("/v1/shards/1.163.2-0/logs?follow=true&tail=0"),
  ];
  expect(api.service.openStreams).toBe(3);
  for (const stream of streams) stream.leave();
  await expect.poll(() => api.service.openStreams).toBe(0);
});

test("open streams do not hold up the end of the API", async () => {
  const events = await open("/v1/events?follow=true");
  const logs = await open("/v1/tenants/clinic-a/logs?follow=true&tail=1");
  const routes = await open("/v1/routes?gateway=g1", GATEWAY_TOKEN);
  expect(await logs.line()).toBe("third line");
  await routes.line();
  await api.close();
  // They end as if complete: a broken connection would look like a crash to a follower.
  expect([await events.line(), await logs.line(), await routes.line()]).toEqual([undefined, undefined, undefined]);
  expect(api.service.openStreams).toBe(0);
  expect(api.routeFeed.gateways()).toEqual([]);
});

test("sends the lines of a log that were asked for, up to its end", async () => {
  for (const [query, text] of [
    ["", "first line\nsecond line\nthird line\n"],
    ["?tail=2", "second line\nthird line\n"],
    ["?tail=0", ""],
  ]) {
    const answer = await api.request(`/v1/tenants/clinic-a/logs${query}`);
    expect([query, await answer.text()]).toEqual([query, text]);
  }
});

test("a slow reader does not make the API hold a whole log in memory", async () => {
  let produced = 0;
  api.service.tenantLog = async function* () {
    for (; produced < 1_000_000; produced += 1) yield "x".repeat(1000);
  };
  const stream = await open("/v1/tenants/clinic-a/logs");
  await stream.line();
  await new Promise((resolve) => void setTimeout(resolve, 300));
  // What fits into the sockets' and the streams' buffers, of a gigabyte.
  expect(produced).toBeLessThan(50_000);
  stream.leave();
});

test("an error at a stream's beginning has its own status", async () => {
  expect((await api.request("/v1/tenants/nobody/logs?follow=true")).status).toBe(404);
  expect((await api.request("/v1/shards/nothing/logs")).status).toBe(404);
  // oxlint-disable-next-line require-yield
  api.service.tenantLog = async function* () {
    throw new UserError("Conflict", "it is on no shard");
  };
  const refused = await api.request("/v1/tenants/clinic-a/logs");
  expect([refused.status, await refused.json()]).toEqual([
    409,
    { error: { code: "Conflict", message: "it is on no shard" } },
  ]);
});

test("a stream that breaks off does not look complete", async () => {
  api.service.tenantLog = async function* () {
    yield "first";
    throw new Error("disk on fire");
  };
  const response = await api.request("/v1/tenants/clinic-a/logs");
  await expect(response.text()).rejects.toThrow(/terminated|aborted/);
  await expect.poll(() => api.logged()).toContain("disk on fire");
});

test("gateways get routes, and their acknowledgements count", async () => {
  api.routeFeed.publish({
    tenant: "clinic-a",
    hosts: ["clinic-a.localhost"],
    state: "serving",
    address: "127.0.0.1:1",
    epoch: 1,
  });
  const stream = await open("/v1/routes?gateway=g1", GATEWAY_TOKEN);
  const snapshot = JSON.parse((await stream.line())!) as RouteFeedLine;
  expect(snapshot).toMatchObject({ type: "snapshot", version: 1, routes: [{ tenant: "clinic-a" }] });
  const version = api.routeFeed.publish({ tenant: "clinic-a", hosts: [], state: "parked", epoch: 1 });
  expect(JSON.parse((await stream.line())!)).toMatchObject({ type: "update", version, routes: [{ state: "parked" }] });

  const settled = api.routeFeed.settled(version, 10_000);
  const body = JSON.stringify({ gateway: "g1", version, parks: { "clinic-a": { parked: 3, failed: 1 } } });
  const ack = await api.request("/v1/routes/acks", { method: "POST", token: GATEWAY_TOKEN, body });
  expect(ack.status).toBe(204);
  expect(await settled).toBe(true);
  expect(api.routeFeed.takeParkCount("clinic-a")).toEqual({ parked: 3, failed: 1 });

  stream.leave();
  await expect.poll(() => api.routeFeed.gateways()).toEqual([]);
});
