import { assert, array, constantFrom, nat, property, record } from "fast-check";
import { describe, expect, it } from "vitest";
import type { ClusterEvent } from "../../src/model/event.ts";
import {
  digestOf,
  MOST_NOTICES,
  NotificationsSchema,
  topicOf,
  WebhookSchema,
  type ChannelState,
} from "../../src/model/notification.ts";

const rule = WebhookSchema.parse({ name: "ops", url: "https://ops.example/hook", secretFile: "/secret" });
const fresh: ChannelState = { after: 0, quiet: {} };
const HOUR = 3_600_000;
const at = (now: number) => ({ now, quietMs: HOUR });

function event(id: number, more: Partial<ClusterEvent> = {}): ClusterEvent {
  const time = new Date(id * 1000).toISOString();
  return { id, time, type: "Warning", reason: "QuotaNear", object: "Tenant/a", message: `message ${id}`, ...more };
}

it.each([
  ["QuotaReached", "Tenant/a", "quota"],
  ["Quarantined", "Tenant/a", "quarantine"],
  ["BackupFailed", "Tenant/a", "backup"],
  ["CertificateEndsSoon", "Tenant/a", "certificate"],
  ["ShardLost", "Shard/1.163.2-0", "shard"],
  ["RolloutHalted", "Fleet/fleet", "rollout"],
  ["InvalidConfig", "Tenant/a", "tenant"],
] as const)("an event %s of %s is about %s", (reason, object, topic) => {
  expect(topicOf({ reason, object })).toBe(topic);
});

describe("what is told", () => {
  it("are warnings of the channel's topics, what it names besides, and nothing that it excepts", () => {
    const own = { ...rule, topics: ["quota" as const], reasons: ["PurgeDue"], except: ["QuotaReached"] };
    const events = [
      event(1),
      event(2, { reason: "QuotaReached" }),
      event(3, { reason: "ShardLost", object: "Shard/x" }),
      event(4, { reason: "PurgeDue", type: "Normal" }),
      event(5, { reason: "Started", type: "Normal" }),
    ];
    const { notices, state } = digestOf(own, fresh, events, at(0));
    expect(notices.map(({ reason }) => reason)).toEqual(["QuotaNear", "PurgeDue"]);
    // What need not be told is not looked at again.
    expect(state.after).toBe(5);
  });

  it("is one notice for events of one reason and object, with the last message", () => {
    const { notices } = digestOf(rule, fresh, [event(1), event(2), event(3, { object: "Tenant/b" })], at(0));
    expect(notices).toMatchObject([
      { object: "Tenant/a", count: 2, message: "message 2", first: event(1).time, last: event(2).time },
      { object: "Tenant/b", count: 1 },
    ]);
  });

  it("is not told again while it is quiet, and then with how often it came", () => {
    const first = digestOf(rule, fresh, [event(1)], at(0));
    const second = digestOf(rule, first.state, [event(2), event(3)], at(HOUR - 1));
    expect(second.notices).toEqual([]);
    const third = digestOf(rule, second.state, [], at(HOUR));
    expect(third.notices).toMatchObject([{ count: 2, message: "message 3" }]);
    expect(digestOf(rule, third.state, [], at(3 * HOUR))).toMatchObject({ notices: [], state: { quiet: {} } });
  });

  it("says how many events were forgotten before they could be told", () => {
    expect(digestOf(rule, { after: 10, quiet: {} }, [event(15)], at(0)).missed).toBe(4);
    expect(digestOf(rule, { after: 10, quiet: {} }, [event(11)], at(0)).missed).toBe(0);
  });

  it("is bounded, and says how much there is besides", () => {
    const events = Array.from({ length: 3000 }, (_, index) => event(index + 1, { object: `Tenant/t${index}` }));
    const { notices, more, state } = digestOf(rule, fresh, events, at(0));
    expect([notices.length, more]).toEqual([MOST_NOTICES, 3000 - MOST_NOTICES]);
    expect(Object.keys(state.quiet)).toHaveLength(1000);
  });

  it("counts each event once, in whatever pieces they come", () => {
    const source = array(record({ object: constantFrom("Tenant/a", "Tenant/b"), pause: nat(2 * HOUR) }), {
      maxLength: 30,
    });
    assert(
      property(source, (given) => {
        let [state, now, told] = [fresh, 0, 0];
        for (const [index, { object, pause }] of given.entries()) {
          now += pause;
          const digest = digestOf(rule, state, [event(index + 1, { object })], at(now));
          told += digest.notices.reduce((sum, { count }) => sum + count, 0);
          ({ state } = digest);
        }
        const rest = digestOf(rule, state, [], at(now + 3 * HOUR)).notices;
        expect(told + rest.reduce((sum, { count }) => sum + count, 0)).toBe(given.length);
      }),
    );
  });
});

it.each([
  [{ webhooks: [{ name: "a", url: "ftp://x", secretFile: "/s" }] }],
  [{ webhooks: [{ name: "a", url: "https://x", secretFile: "s" }] }],
  [{ webhooks: [{ name: "A", url: "https://x", secretFile: "/s" }] }],
  [{ webhooks: [{ name: "a", url: "https://x", secretFile: "/s", topics: ["all"] }] }],
  [{ mail: [{ name: "a", server: { host: "h", username: "u" }, from: "a@b", to: ["a@b"] }] }],
  [{ mail: [{ name: "a", server: { host: "h" }, from: "a@b\nBcc: c@d", to: ["a@b"] }] }],
  [
    {
      webhooks: [{ name: "a", url: "https://x", secretFile: "/s" }],
      mail: [{ name: "a", server: { host: "h" }, from: "a@b", to: ["a@b"] }],
    },
  ],
])("refuses %j", (wrong) => {
  expect(NotificationsSchema.safeParse(wrong).success).toBe(false);
});
