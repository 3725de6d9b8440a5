import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Notifier } from "../../../src/controller/notifications/notifier.ts";
import type { ClusterEvent } from "../../../src/model/event.ts";
import { WebhookSchema, type Notification } from "../../../src/model/notification.ts";
import { FileNotificationStates } from "../../../src/platforms/local/notification-states.ts";
import type { NotificationChannel } from "../../../src/ports/notifications.ts";

let folder: string;
let file: string;
let now: number;
let events: ClusterEvent[];
let sent: Notification[];
let broken: string | undefined;
let notifier: Notifier;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "notifier-"));
  file = join(folder, "notifications.json");
  [now, events, sent, broken] = [Date.parse("2026-01-01T00:00:00Z"), [], [], undefined];
  notifier = begin();
});
afterEach(() => rmSync(folder, { recursive: true }));

const channel: NotificationChannel = {
  rule: WebhookSchema.parse({ name: "ops", url: "https://ops.example", secretFile: "/secret" }),
  kind: "webhook",
  async send(notification) {
    if (broken !== undefined) throw new Error(broken);
    sent.push(notification);
  },
};

function begin(channels = [channel], groupSeconds = 30): Notifier {
  const kept = 10;
  return new Notifier({
    // As stores do: the newest ones, and the oldest are forgotten.
    store: {
      listEvents: async ({ after = 0, limit }) =>
        events
          .filter(({ id }) => id > after)
          .slice(-limit)
          .slice(-kept),
    },
    states: new FileNotificationStates(file),
    clock: { now: () => now, after: () => () => {} },
    log: pino({ level: "silent" }),
    config: () => ({ channels, groupSeconds, quietSeconds: 3600 }),
  });
}

function happens(object: string, more: Partial<ClusterEvent> = {}): void {
  const time = new Date(now).toISOString();
  events.push({
    id: (events.at(-1)?.id ?? 0) + 1,
    time,
    type: "Warning",
    reason: "Failed",
    object,
    message: "m",
    ...more,
  });
}

async function passes(seconds: number): Promise<void> {
  now += seconds * 1000;
  await notifier.turn();
}

const objects = () => sent.map(({ notices }) => notices.map(({ object }) => object));

it("tells nothing of what was before it knew the channel, and then what comes together at once", async () => {
  happens("Tenant/before");
  await passes(0);
  happens("Tenant/a");
  await passes(29);
  happens("Tenant/b");
  expect(sent).toEqual([]);
  await passes(1);
  await passes(60);
  expect(objects()).toEqual([["Tenant/a", "Tenant/b"]]);
});

it("goes on after a restart where it was, and tells nothing twice", async () => {
  await passes(0);
  happens("Tenant/a");
  await passes(30);
  happens("Tenant/b");
  happens("Tenant/a");
  notifier = begin();
  await passes(30);
  expect(objects()).toEqual([["Tenant/a"], ["Tenant/b"]]);
  // What came again is held, also over the restart.
  notifier = begin();
  await passes(3600);
  expect(objects().at(-1)).toEqual(["Tenant/a"]);
});

it("tries again with the same content under the same id, less and less often, and says what is wrong", async () => {
  await passes(0);
  happens("Tenant/a");
  broken = "it answers with 500";
  await passes(30);
  expect(notifier.channels()).toMatchObject([{ name: "ops", failures: 1, problem: "it answers with 500" }]);
  expect(notifier.problems()).toEqual(["notifications by ops fail: it answers with 500"]);
  happens("Tenant/b");
  await passes(1);
  expect(notifier.channels()[0]?.failures).toBe(1);
  await passes(30);
  expect(notifier.channels()[0]?.failures).toBe(2);
  broken = undefined;
  await passes(60);
  expect(objects()).toEqual([["Tenant/a"]]);
  await passes(60);
  expect(objects()).toEqual([["Tenant/a"], ["Tenant/b"]]);
  expect(new Set(sent.map(({ id }) => id)).size).toBe(2);
  expect(notifier.problems()).toEqual([]);
  expect(notifier.channels()).toMatchObject([{ failures: 0, lastSentAt: new Date(now).toISOString() }]);
});

it("says what was forgotten while the channel was away", async () => {
  await passes(0);
  for (let n = 0; n < 25; n += 1) happens(`Tenant/t${n}`);
  await passes(30);
  expect(sent[0]).toMatchObject({ missed: 15 });
});

it("does not let a channel that does not answer keep the others waiting", async () => {
  const stuck: NotificationChannel = {
    ...channel,
    rule: { ...channel.rule, name: "stuck" },
    send: () => new Promise(() => {}),
  };
  notifier = begin([stuck, channel]);
  await notifier.turn();
  happens("Tenant/a");
  now += 30_000;
  void notifier.turn();
  await expect.poll(objects).toEqual([["Tenant/a"]]);
});

it("begins with what is new where its file cannot be read, or is of a store that has gone back", async () => {
  for (const text of ["{", JSON.stringify({ channels: { ops: { after: 1000, quiet: {} } } })]) {
    writeFileSync(file, text);
    happens("Tenant/old");
    notifier = begin();
    await passes(0);
    happens(`Tenant/new${text.length}`);
    await passes(30);
    expect(objects().at(-1)).toEqual([`Tenant/new${text.length}`]);
  }
});

it("sends a test by each channel, and says how each ended", async () => {
  const other: NotificationChannel = {
    ...channel,
    rule: { ...channel.rule, name: "other" },
    send: async () => {
      throw new Error("it answers with 404");
    },
  };
  notifier = begin([channel, other]);
  expect(await notifier.test()).toEqual([
    { name: "ops", ok: true, message: "it was taken" },
    { name: "other", ok: false, message: "it answers with 404" },
  ]);
  expect(sent).toMatchObject([{ test: true, notices: [] }]);
  await expect(begin([]).test()).rejects.toMatchObject({ code: "Conflict" });
});
