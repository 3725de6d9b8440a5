import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { identityOf, nothingNew, pollOf, withTimeout } from "../../../src/gateway/sleep/idle-polls.ts";

const CLASSIC = "/_matrix/client/v3/sync";
const SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const AT = "s10_2_0_4_5_6_7_8_0_1";

function identity(target: string, { method = "GET", token = "Bearer a", body = "" } = {}) {
  const poll = pollOf(method, target);
  return poll && identityOf(poll, token, Buffer.from(body));
}

describe("a poll", () => {
  it("is recognised with its position, its time and all other parameters", () => {
    expect(pollOf("GET", `${CLASSIC}?filter=1&since=${AT}&timeout=30000&set_presence=offline`)).toEqual({
      kind: "classic",
      path: CLASSIC,
      position: AT,
      timeoutMs: 30_000,
      rest: "filter=1&set_presence=offline",
    });
    expect(pollOf("POST", `${SLIDING}?pos=4%2F${AT}&timeout=20000`)).toMatchObject({
      kind: "sliding",
      position: `4/${AT}`,
    });
    expect(pollOf("GET", `${CLASSIC}?since=${AT}`)?.timeoutMs).toBe(0);
    expect(pollOf("GET", `${CLASSIC}?since=${AT}&full_state=false`)).toBeDefined();
  });

  it.each([
    ["an initial sync", "GET", `${CLASSIC}?timeout=30000`],
    ["an empty position", "GET", `${CLASSIC}?since=&timeout=30000`],
    ["one for the full state", "GET", `${CLASSIC}?since=${AT}&full_state=true`],
    ["two positions", "GET", `${CLASSIC}?since=${AT}&since=s1_1_1`],
    ["two times", "GET", `${CLASSIC}?since=${AT}&timeout=1&timeout=2`],
    ["a time that is no number", "GET", `${CLASSIC}?since=${AT}&timeout=-1`],
    ["a broken escape", "GET", `${CLASSIC}?since=${AT}&filter=%E0%A4%A`],
    ["a parameter without a value", "GET", `${CLASSIC}?since=${AT}&x`],
    ["no parameters", "GET", CLASSIC],
    ["another method", "POST", `${CLASSIC}?since=${AT}`],
    ["a sliding sync that is a GET", "GET", `${SLIDING}?pos=1/${AT}`],
    ["another path", "GET", `/_matrix/client/v3/events?since=${AT}`],
    ["a path that ends alike", "GET", `/_matrix/client/v3/rooms/x/sync?since=${AT}`],
  ])("is not %s", (_what, method, target) => {
    expect(pollOf(method, target)).toBeUndefined();
  });

  it("is the same with another time and position, and another with any other difference", () => {
    const base = identity(`${CLASSIC}?filter=1&since=${AT}&timeout=30000`)!;
    expect(identity(`${CLASSIC}?filter=1&timeout=0&since=s11_1_1`)).toEqual({ key: base.key, standing: "s11_1_1" });
    const others = [
      identity(`${CLASSIC}?filter=2&since=${AT}&timeout=30000`),
      identity(`${CLASSIC}?since=${AT}&timeout=30000`),
      identity(`${CLASSIC}?filter=1&since=${AT}&timeout=30000&set_presence=offline`),
      identity(`${CLASSIC.replace("v3", "r0")}?filter=1&since=${AT}&timeout=30000`),
      identity(`${CLASSIC}?filter=1&since=${AT}&timeout=30000`, { token: "Bearer b" }),
      identity(`${CLASSIC}?filter=1&since=${AT}&timeout=30000`, { token: "" }),
      identity(`${CLASSIC}?filter=1&since=${AT}&timeout=30000&access_token=a`, { token: "" }),
    ].map((one) => one!.key);
    expect(new Set([base.key, ...others]).size).toBe(others.length + 1);
  });

  it("does not show its token in its key, nor anything that is the same in another process", () => {
    const { key } = identity(`${CLASSIC}?since=${AT}`, { token: "Bearer secret" })!;
    expect(key).toMatch(/^[\w-]{24}$/);
    expect(Buffer.from(key, "base64url").toString("latin1")).not.toContain("secret");
  });

  it("never takes parts for each other", () => {
    const part = fc.string({ unit: fc.constantFrom("a", ":", "1"), maxLength: 6 });
    fc.assert(
      fc.property(fc.tuple(part, part), fc.tuple(part, part), (one, other) => {
        const keyOf = ([token, rest]: [string, string]) =>
          identityOf({ kind: "classic", path: CLASSIC, position: AT, timeoutMs: 0, rest }, token, undefined)!.key;
        expect(keyOf(one) === keyOf(other)).toBe(one[0] === other[0] && one[1] === other[1]);
      }),
    );
  });

  it("of sliding sync stands where both its position and its messages to the device stand", () => {
    const target = `${SLIDING}?pos=3/${AT}&timeout=1`;
    const bodyOf = (toDevice: object, lists: object = {}) =>
      JSON.stringify({ lists, extensions: { to_device: { enabled: true, ...toDevice }, e2ee: { enabled: true } } });
    const at = (body: string) => identity(target, { method: "POST", body });
    const first = at(bodyOf({}))!;
    const later = at(bodyOf({ since: "7" }))!;
    expect(later.key).toBe(first.key);
    expect([first.standing, later.standing]).toEqual([`3/${AT}`, `3/${AT} 7`]);
    expect(at(bodyOf({ since: "7" }, { all: { ranges: [[0, 9]] } }))!.key).not.toBe(first.key);
    expect(at(bodyOf({ since: 7 }))).toBeUndefined();
    for (const body of ["", "[]", "no JSON", "null"]) expect(at(body)).toBeUndefined();
  });

  it("is sent on with the time that is left", () => {
    const target = `${CLASSIC}?timeout=30000&since=${AT}`;
    expect(withTimeout(target, 1234.9)).toBe(`${CLASSIC}?timeout=1234&since=${AT}`);
    expect(withTimeout(`${CLASSIC}?since=${AT}&timeout=30000`, -5)).toBe(`${CLASSIC}?since=${AT}&timeout=0`);
  });
});

describe("an answer with nothing new", () => {
  const classic = {
    next_batch: AT,
    device_one_time_keys_count: { signed_curve25519: 50 },
    device_unused_fallback_key_types: ["signed_curve25519"],
  };
  const sliding = {
    pos: `3/${AT}`,
    lists: { all: { count: 2, ops: [{ op: "SYNC", range: [0, 9], room_ids: ["!a:b"] }] } },
    rooms: {},
    extensions: {
      to_device: { next_batch: "7", events: [] },
      e2ee: {
        device_one_time_keys_count: { signed_curve25519: 50 },
        device_unused_fallback_key_types: [],
        device_lists: { changed: [], left: [] },
      },
      account_data: { global: [], rooms: {} },
      receipts: { rooms: {} },
      typing: { rooms: {} },
    },
  };

  it("has positions and counts of keys alone", () => {
    expect(nothingNew("classic", JSON.stringify(classic))).toEqual({ standing: AT, position: AT });
    expect(nothingNew("classic", JSON.stringify({ ...classic, rooms: { join: {} } }))).toBeDefined();
    expect(nothingNew("sliding", JSON.stringify(sliding))).toEqual({ standing: `3/${AT} 7`, position: AT });
  });

  it.each([
    ["rooms", { rooms: { join: { "!a:b": { timeline: { limited: false } } } } }],
    ["presence", { presence: { events: [{ sender: "@a:b" }] } }],
    ["messages to the device", { to_device: { events: [{}] } }],
    ["changed devices", { device_lists: { changed: ["@a:b"] } }],
    ["what is not known here", { "org.example.news": "x" }],
    ["a number that is not known here", { "org.example.count": 0 }],
    ["no position", { next_batch: undefined }],
  ])("of classic sync has no %s", (_what, more) => {
    expect(nothingNew("classic", JSON.stringify({ ...classic, ...more }))).toBeUndefined();
  });

  it.each([
    ["rooms", { ...sliding, rooms: { "!a:b": { bump_stamp: 1 } } }],
    ["messages to the device", { ...sliding, extensions: { to_device: { next_batch: "8", events: [{}] } } }],
    ["changed devices", { ...sliding, extensions: { e2ee: { device_lists: { changed: ["@a:b"] } } } }],
    ["receipts", { ...sliding, extensions: { receipts: { rooms: { "!a:b": { type: "m.receipt" } } } } }],
    ["a position in an extension that is not known here", { ...sliding, extensions: { new: { next_batch: "1" } } }],
    ["a transaction's number", { ...sliding, txn_id: "x" }],
    ["a position without its connection's", { ...sliding, pos: AT }],
  ])("of sliding sync has no %s", (_what, answer) => {
    expect(nothingNew("sliding", JSON.stringify(answer))).toBeUndefined();
  });

  it("is none of what is no object", () => {
    for (const text of ["", "[]", "null", '"x"', "{"]) expect(nothingNew("classic", text)).toBeUndefined();
  });

  it("has no text or number anywhere but in what is known, whatever it is", () => {
    const leaf = fc.oneof(fc.string({ minLength: 1 }), fc.integer(), fc.boolean());
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-z]{1,8}$/).filter((name) => name !== "next_batch"),
        leaf,
        fc.array(fc.constantFrom("a", "b"), { maxLength: 4 }),
        (name, value, path) => {
          const nested = path.reduceRight<unknown>((inner, key) => (key === "a" ? { a: inner } : [inner]), value);
          expect(nothingNew("classic", JSON.stringify({ ...classic, [name]: nested }))).toBeUndefined();
        },
      ),
    );
  });
});
