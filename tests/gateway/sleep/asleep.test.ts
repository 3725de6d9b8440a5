import type { IncomingMessage, ServerResponse } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import type { Route } from "../../../src/model/routes.ts";
import { ask, asleep, Bench, eventually, parked, serving, type Origin } from "../harness.ts";

let bench: Bench;
afterEach(() => bench?.stop());

const AT = "s10_2_0_4_5_6";
const LATER = "s11_2_0_4_5_6";
const SYNC = `/_matrix/client/v3/sync?since=${AT}&timeout=`;
const SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const NOTHING = JSON.stringify({ next_batch: AT, device_one_time_keys_count: { signed_curve25519: 50 } });
const TOKEN = { authorization: "Bearer token" };

const fallingAsleep = (origin?: Origin): Route => ({ ...parked("a", 1, origin), reason: "FallingAsleep" });
const waking = (): Route => ({ ...parked("a", 3), reason: "Waking" });

/** A homeserver with nothing new, but for what `answers` says. */
async function homeserver(
  answers: (request: IncomingMessage, response: ServerResponse) => boolean = () => false,
): Promise<Origin & { asked: string[] }> {
  const asked: string[] = [];
  const origin = await bench.origin((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    request.resume();
    if (answers(request, response)) return;
    response.setHeader("Content-Type", "application/json");
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.end(request.url!.includes("/sync") ? NOTHING : "{}");
  });
  return Object.assign(origin, { asked });
}

/** A tenant that polled once and falls asleep, and its next poll, which is held. */
async function heldWhileFallingAsleep(): Promise<{
  origin: Origin & { asked: string[] };
  poll: ReturnType<typeof ask>;
}> {
  bench = await Bench.start([]);
  const origin = await homeserver();
  await bench.controller.update([serving("a", origin)]);
  await ask(bench, "a.example", { path: `${SYNC}1`, headers: TOKEN });
  await bench.controller.update([fallingAsleep(origin)]);
  const poll = ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN });
  await eventually("it is held", async () => (await heldPolls()) === 1);
  return { origin, poll };
}

/** A tenant that polled once, and sleeps at `position`. */
async function sleeper(
  position: string | undefined = AT,
  answers?: Parameters<typeof homeserver>[0],
): Promise<Origin & { asked: string[] }> {
  bench = await Bench.start([], {}, { wakeAgainMs: 100 });
  const origin = await homeserver(answers);
  await bench.controller.update([serving("a", origin)]);
  await ask(bench, "a.example", { path: `${SYNC}1`, headers: TOKEN });
  await bench.controller.update([fallingAsleep(origin)]);
  await bench.controller.update([asleep("a", position)]);
  return origin;
}

const heldPolls = () => bench.metric("held_polls");
const wakesFor = (tenant: string) =>
  bench.controller.wakes.flatMap(({ tenants }) => tenants).filter((one) => one.tenant === tenant);

describe("a poll for a tenant that sleeps", () => {
  it("goes on being held while the tenant gets another name, and a later one is held as well", async () => {
    const origin = await sleeper();
    const first = ask(bench, "a.example", { path: `${SYNC}1500`, headers: TOKEN });
    await eventually("it is held", async () => (await heldPolls()) === 1);
    await bench.controller.update([{ ...asleep("b", AT), hosts: ["a.example"], formerly: "a" }], ["a"]);
    const second = ask(bench, "a.example", { path: `${SYNC}1500`, headers: TOKEN });
    await eventually("both are held", async () => (await heldPolls()) === 2);
    expect((await Promise.all([first, second])).map(({ status, text }) => [status, text])).toEqual([
      [200, NOTHING],
      [200, NOTHING],
    ]);
    expect(origin.asked).toHaveLength(1);
    expect([...wakesFor("a"), ...wakesFor("b")]).toEqual([]);
  });

  it("is held for its own time and answered byte for byte as the last one, without a wake", async () => {
    const origin = await sleeper();
    const started = performance.now();
    const answer = await ask(bench, "a.example", { path: `${SYNC}700`, headers: TOKEN });
    expect(performance.now() - started).toBeGreaterThanOrEqual(699);
    expect([answer.status, answer.text]).toEqual([200, NOTHING]);
    expect(answer.headers["content-type"]).toBe("application/json");
    expect(answer.headers["access-control-allow-origin"]).toBe("*");
    expect(answer.headers["content-length"]).toBe(String(NOTHING.length));
    expect(origin.asked).toHaveLength(1);
    expect(bench.controller.wakes).toEqual([]);
    expect(await bench.metric('held_polls_total{outcome="answered"}')).toBe(1);
  });

  it("is answered at once when it gives no time", async () => {
    await sleeper();
    const answer = await ask(bench, "a.example", { path: `${SYNC}0`, headers: TOKEN });
    expect(answer.text).toBe(NOTHING);
    expect(bench.controller.wakes).toEqual([]);
  });

  it("is held from the moment the tenant falls asleep, however soon after the drain it comes, and passed on if that is called off", async () => {
    const { origin, poll } = await heldWhileFallingAsleep();
    expect(bench.controller.wakes).toEqual([]);
    await bench.controller.update([serving("a", origin)]);
    expect((await poll).text).toBe(NOTHING);
    expect(origin.asked).toHaveLength(2);
  });

  it("is passed on at once when the tenant wakes, with the time it has left, and gets what is new", async () => {
    await sleeper();
    const poll = ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN });
    await eventually("it is held", async () => (await heldPolls()) === 1);
    await bench.controller.update([waking()]);
    expect(await heldPolls()).toBe(1);
    const news = JSON.stringify({ next_batch: LATER, rooms: { join: { "!a:b": { timeline: { limited: true } } } } });
    const awake = await homeserver((_request, response) => Boolean(response.end(news)));
    await bench.controller.update([serving("a", awake, 3)]);
    expect((await poll).text).toBe(news);
    const left = Number(/timeout=(\d+)/.exec(awake.asked[0]!)![1]);
    expect(left).toBeGreaterThan(30_000);
    expect(left).toBeLessThan(60_000);
    expect(await bench.metric('held_polls_total{outcome="passed"}')).toBe(1);
  });

  it("ends with the reason when the tenant cannot be woken", async () => {
    await sleeper();
    const poll = ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN });
    await eventually("it is held", async () => (await heldPolls()) === 1);
    await bench.controller.update([{ ...asleep("a"), state: "unavailable", reason: "Failed" }]);
    const answer = await poll;
    expect([answer.status, answer.json.error]).toEqual([503, expect.stringContaining("Failed")]);
    expect(await heldPolls()).toBe(0);
  });

  it("frees its place when its client goes away", async () => {
    await sleeper();
    const gone = new AbortController();
    const poll = ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN, signal: gone.signal });
    poll.catch(() => {});
    await eventually("it is held", async () => (await heldPolls()) === 1);
    gone.abort();
    await eventually("its place is free", async () => (await heldPolls()) === 0);
    expect(await bench.metric('held_polls_total{outcome="left"}')).toBe(1);
    expect(await bench.metric("held_bytes")).toBe(0);
  });

  it("is answered at once when the gateway stops", async () => {
    await sleeper();
    const poll = ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN });
    await eventually("it is held", async () => (await heldPolls()) === 1);
    await bench.gateway.stop(10_000);
    expect((await poll).text).toBe(NOTHING);
  });

  it.each([
    ["another token", `${SYNC}60000`, { authorization: "Bearer other" }],
    ["no token", `${SYNC}60000`, {}],
    ["an older position", `${SYNC.replace("s10", "s9")}60000`, TOKEN],
    ["another filter", `${SYNC}60000&filter=2`, TOKEN],
    ["the full state", `${SYNC}60000&full_state=true`, TOKEN],
    ["another presence", `${SYNC}60000&set_presence=online`, TOKEN],
  ])("wakes it with %s", async (_what, path, headers) => {
    await sleeper();
    const poll = ask(bench, "a.example", { path, headers });
    await eventually("a wake is asked for", () => wakesFor("a").length > 0);
    expect(await heldPolls()).toBe(0);
    const awake = await homeserver();
    await bench.controller.update([serving("a", awake, 3)]);
    expect((await poll).status).toBe(200);
    // What waits was never held, and is sent as it came.
    expect(awake.asked).toEqual([`GET ${path}`]);
  });

  it.each([
    ["the tenant went to sleep with something that it was not told", LATER],
    ["it is not known where the tenant's streams ended", undefined],
  ])("wakes it when %s", async (_what, position) => {
    const { origin, poll } = await heldWhileFallingAsleep();
    await bench.controller.update([asleep("a", position)]);
    await eventually("a wake is asked for", () => wakesFor("a").length > 0);
    expect(wakesFor("a")[0]!.why).toBe("poll");
    await bench.controller.update([serving("a", origin, 3)]);
    expect((await poll).status).toBe(200);
  });

  it("wakes it when its last answer was another, or an error, or had something new", async () => {
    let next: [number, string] = [200, NOTHING];
    const origin = await sleeper(AT, (_request, response) => {
      response.writeHead(next[0], { "Content-Type": "application/json" }).end(next[1]);
      return true;
    });
    for (const answer of [
      [401, '{"errcode":"M_UNKNOWN_TOKEN"}'],
      [200, JSON.stringify({ next_batch: AT, presence: { events: [{}] } })],
      [200, "not JSON"],
    ] as [number, string][]) {
      bench.controller.wakes.length = 0;
      next = [200, NOTHING];
      await bench.controller.update([serving("a", origin)]);
      await ask(bench, "a.example", { path: `${SYNC}1`, headers: TOKEN });
      next = answer;
      await ask(bench, "a.example", { path: `${SYNC}1`, headers: TOKEN });
      await bench.controller.update([asleep("a", AT)]);
      const poll = ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN });
      await eventually("a wake is asked for", () => wakesFor("a").length > 0);
      next = [200, NOTHING];
      await bench.controller.update([serving("a", origin)]);
      expect((await poll).status).toBe(200);
    }
  });

  it("wakes it when the tenant has been started again since", async () => {
    const origin = await sleeper();
    await bench.controller.update([serving("a", origin, 3)]);
    await bench.controller.update([asleep("a", AT, 4)]);
    const poll = ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN });
    await eventually("a wake is asked for", () => wakesFor("a").length > 0);
    await bench.controller.update([serving("a", origin, 5)]);
    expect((await poll).status).toBe(200);
  });

  it("wakes it when there is no room to hold it", async () => {
    bench = await Bench.start([], { sleeping: { maxHeldPolls: 1, maxRememberedBytes: 1_000_000 } });
    const origin = await homeserver();
    await bench.controller.update([serving("a", origin)]);
    await ask(bench, "a.example", { path: `${SYNC}1`, headers: TOKEN });
    await bench.controller.update([asleep("a", AT)]);
    const polls = [1, 2].map(() => ask(bench, "a.example", { path: `${SYNC}60000`, headers: TOKEN }));
    await eventually("a wake is asked for", () => wakesFor("a").length > 0);
    await bench.controller.update([serving("a", origin, 3)]);
    for (const poll of polls) expect((await poll).status).toBe(200);
  });

  it("of sliding sync is held as well, by its connection and with what it read of messages to its device", async () => {
    const bodyOf = (since?: string, conn = "main") =>
      JSON.stringify({ conn_id: conn, lists: {}, extensions: { to_device: { enabled: true, since } } });
    const said = JSON.stringify({
      pos: `3/${AT}`,
      rooms: {},
      extensions: { to_device: { next_batch: "7", events: [] } },
    });
    await sleeper(AT, (request, response) => request.method === "POST" && Boolean(response.end(said)));
    const post = (body: string, timeout: number, pos = `3/${AT}`) =>
      ask(bench, "a.example", {
        method: "POST",
        path: `${SLIDING}?pos=${encodeURIComponent(pos)}&timeout=${timeout}`,
        headers: { ...TOKEN, "content-type": "application/json" },
        body,
      });
    const origin = await homeserver((request, response) => request.method === "POST" && Boolean(response.end(said)));
    await bench.controller.update([serving("a", origin, 3)]);
    expect((await post(bodyOf("6"), 1, `2/${AT}`)).text).toBe(said);
    await bench.controller.update([asleep("a", AT, 4)]);
    expect((await post(bodyOf("7"), 300)).text).toBe(said);
    expect(bench.controller.wakes).toEqual([]);
    for (const [body, pos] of [
      [bodyOf("6"), `3/${AT}`],
      [bodyOf("7", "other"), `3/${AT}`],
      [bodyOf("7"), `2/${AT}`],
    ] as const) {
      bench.controller.wakes.length = 0;
      const poll = post(body, 60_000, pos);
      await eventually("a wake is asked for", () => wakesFor("a").length > 0);
      await bench.controller.update([serving("a", origin, 3)]);
      expect((await poll).text).toBe(said);
      await bench.controller.update([asleep("a", AT, 4)]);
    }
  });
});

describe("a wake", () => {
  it("is asked for once at once, whoever waits, and again while they wait", async () => {
    await sleeper();
    const asked = Array.from({ length: 50 }, (_, i) =>
      ask(bench, "a.example", { path: `/_matrix/client/v3/profile/@nobody${i}:a.example` }),
    );
    await eventually("a wake is asked for", () => wakesFor("a").length === 1);
    await eventually("all wait", async () => (await bench.parkedNow("a")) === 50);
    await eventually("it is asked for again", () => wakesFor("a").length >= 3);
    expect(await bench.metric('wakes_total{why="request"}')).toBe(1);
    await bench.controller.update([waking()]);
    const before = wakesFor("a").length;
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(wakesFor("a").length).toBeLessThanOrEqual(before + 1);
    await bench.controller.update([serving("a", await homeserver(), 3)]);
    for (const answer of await Promise.all(asked)) expect(answer.status).toBe(200);
  });

  it("is asked for again soon when the controller did not hear", async () => {
    await sleeper();
    bench.controller.refusesWakes = true;
    const asked = ask(bench, "a.example", { path: "/_matrix/client/v3/account/whoami" });
    await eventually("it was refused", () => wakesFor("a").length > 0);
    bench.controller.refusesWakes = false;
    await eventually("it is asked again", () => wakesFor("a").length > 1);
    await bench.controller.update([serving("a", await homeserver(), 3)]);
    expect((await asked).status).toBe(200);
  });

  it("calls off falling asleep, and names why", async () => {
    bench = await Bench.start([]);
    const origin = await homeserver();
    await bench.controller.update([serving("a", origin)]);
    await bench.controller.update([fallingAsleep(origin)]);
    const asked = ask(bench, "a.example", {
      method: "PUT",
      path: "/_matrix/federation/v1/send/1",
      body: "{}",
    });
    await eventually("a wake is asked for", () => wakesFor("a").length > 0);
    expect(wakesFor("a")[0]!.why).toBe("federation");
    await bench.controller.update([serving("a", origin)]);
    expect((await asked).status).toBe(200);
  });
});

describe("what is answered without a wake", () => {
  it("is what the homeserver said last to anybody's questions, also while it wakes, with its headers", async () => {
    const paths = [
      "/_matrix/client/versions",
      "/_matrix/key/v2/server",
      "/.well-known/matrix/client",
      "/_matrix/federation/v1/version",
      "/_matrix/client/v3/login",
    ];
    const origin = await sleeper(AT, (request, response) => {
      response.setHeader("X-Own", "1");
      response.end(JSON.stringify({ path: request.url, valid_until_ts: Date.now() + 86_400_000 }));
      return true;
    });
    await bench.controller.update([serving("a", origin)]);
    const first = await Promise.all(paths.map((path) => ask(bench, "a.example", { path })));
    const asked = origin.asked.length;
    for (const route of [asleep("a", AT, 1), { ...waking(), epoch: 1 }]) {
      await bench.controller.update([route]);
      for (const [index, path] of paths.entries()) {
        const answer = await ask(bench, "a.example", { path });
        expect([answer.status, answer.text, answer.headers["x-own"]]).toEqual([200, first[index]!.text, "1"]);
      }
    }
    expect(origin.asked).toHaveLength(asked);
    expect(bench.controller.wakes).toEqual([]);
    expect(await bench.metric('memory_answers_total{what="keys"}')).toBe(2);
  });

  it("is nothing that was said before a move, which may bring another release or configuration", async () => {
    const origin = await sleeper();
    await bench.controller.update([serving("a", origin)]);
    await ask(bench, "a.example", { path: "/_matrix/client/versions" });
    await bench.controller.update([parked("a")]);
    await bench.controller.update([asleep("a", AT, 1)]);
    const asked = ask(bench, "a.example", { path: "/_matrix/client/versions" });
    await eventually("a wake is asked for", () => wakesFor("a").length > 0);
    await bench.controller.update([serving("a", origin, 3)]);
    expect((await asked).status).toBe(200);
  });

  it("is a preflight, also one that was never asked", async () => {
    await sleeper();
    const answer = await ask(bench, "a.example", {
      method: "OPTIONS",
      path: "/_matrix/client/v3/createRoom",
      headers: { "access-control-request-method": "POST" },
    });
    expect([answer.status, answer.headers["access-control-allow-origin"]]).toEqual([204, "*"]);
    expect(bench.controller.wakes).toEqual([]);
  });

  it("is what no homeserver serves, with 404", async () => {
    const origin = await sleeper();
    for (const path of ["/wp-login.php", "/.env", "/_matrix/identity/v2/lookup"]) {
      const answer = await ask(bench, "a.example", { method: "POST", path, body: "x" });
      expect([answer.status, answer.json.errcode]).toEqual([404, "M_UNRECOGNIZED"]);
    }
    expect(bench.controller.wakes).toEqual([]);
    // While it is awake, it is the homeserver's to say.
    await bench.controller.update([serving("a", origin, 3)]);
    expect((await ask(bench, "a.example", { path: "/wp-login.php" })).status).toBe(200);
  });

  it("is nothing of a tenant that has failed", async () => {
    const origin = await sleeper();
    await bench.controller.update([serving("a", origin)]);
    await ask(bench, "a.example", { path: "/_matrix/client/versions" });
    await bench.controller.update([{ ...asleep("a"), state: "unavailable", reason: "Failed", epoch: 1 }]);
    expect((await ask(bench, "a.example", { path: "/_matrix/client/versions" })).status).toBe(503);
  });

  it("is no question of somebody who says who they are", async () => {
    const origin = await sleeper();
    await bench.controller.update([serving("a", origin)]);
    await ask(bench, "a.example", { path: "/_matrix/client/versions" });
    await bench.controller.update([asleep("a", AT, 1)]);
    const asked = ask(bench, "a.example", { path: "/_matrix/client/versions", headers: TOKEN });
    await eventually("a wake is asked for", () => wakesFor("a").length > 0);
    await bench.controller.update([serving("a", origin, 3)]);
    expect((await asked).status).toBe(200);
  });
});
