import { z } from "zod";
import type { ClusterEvent } from "./event.ts";

/** What events are about, for rules. */
export const TOPICS = {
  tenant: "a tenant that fails, is throttled, or is not as it was asked for",
  quota: "a limit of a tenant's that is near, or reached",
  quarantine: "a tenant that stopped its shard's reactor",
  backup: "backups that failed, or are damaged",
  certificate: "certificates that end soon, or cannot be had",
  shard: "shards that do not come up, are lost, or have little memory left",
  rollout: "a new release that does not reach its tenants",
} as const;
export type Topic = keyof typeof TOPICS;
const TOPIC_NAMES = Object.keys(TOPICS) as [Topic, ...Topic[]];

const BY_REASON: readonly (readonly [RegExp, Topic])[] = [
  [/^Quota/, "quota"],
  [/^(Quarantine|ShardStalled)/, "quarantine"],
  [/^(Backup|Restore)/, "backup"],
  [/^Certificate/, "certificate"],
];
const BY_KIND: Readonly<Record<string, Topic>> = { Shard: "shard", Fleet: "rollout" };

export function topicOf({ reason, object }: Pick<ClusterEvent, "reason" | "object">): Topic {
  const found = BY_REASON.find(([pattern]) => pattern.test(reason))?.[1];
  return found ?? BY_KIND[object.split("/", 1)[0] ?? ""] ?? "tenant";
}

const reasons = z.array(z.string().regex(/^[A-Z][A-Za-z]{0,63}$/, "an event's reason such as QuotaNear")).max(100);
const channel = {
  name: z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'a name: 1 to 63 of a-z, 0-9 and "-"'),
  /** Warnings about these. */
  topics: z
    .array(z.enum(TOPIC_NAMES))
    .min(1)
    .default([...TOPIC_NAMES]),
  /** Events of these reasons, whatever they are about, and though they are no warnings. */
  reasons: reasons.default([]),
  /** No events of these reasons. */
  except: reasons.default([]),
};
const absolutePath = z.string().regex(/^\//, "an absolute path such as /etc/synapse-shards/webhook-secret");

export const WebhookSchema = z.strictObject({
  ...channel,
  url: z.url({ protocol: /^https?$/ }),
  /** What it is signed with, in a file: `whsec_…`, or any text of 24 characters or more. */
  secretFile: absolutePath,
});
export type WebhookConfig = z.infer<typeof WebhookSchema>;

const address = z.string().regex(/^[^\s<>@,;]{1,64}@[^\s<>@,;]{1,255}$/, "an address such as ops@hosting.example");
export const MailSchema = z.strictObject({
  ...channel,
  server: z
    .strictObject({
      host: z.string().min(1).max(255),
      port: z.int().min(1).max(65535).default(587),
      /** tls: from the first byte; starttls: asked for, and needed; none: neither, for a server on this machine. */
      security: z.enum(["tls", "starttls", "none"]).default("starttls"),
      username: z.string().min(1).optional(),
      passwordFile: absolutePath.optional(),
    })
    .refine(({ username, passwordFile }) => (username === undefined) === (passwordFile === undefined), {
      error: "username and passwordFile belong together",
    }),
  from: address,
  to: z.array(address).min(1).max(50),
});
export type MailConfig = z.infer<typeof MailSchema>;

export const NotificationsSchema = z
  .strictObject({
    /** What comes within this time is told together. */
    groupSeconds: z.number().min(0).max(3600).default(30),
    /** The same reason of the same object is told again after this time at the earliest, with how often it came. */
    quietSeconds: z.number().min(0).max(604_800).default(3600),
    webhooks: z.array(WebhookSchema).max(20).default([]),
    mail: z.array(MailSchema).max(20).default([]),
  })
  .refine(
    ({ webhooks, mail }) =>
      new Set([...webhooks, ...mail].map(({ name }) => name)).size === webhooks.length + mail.length,
    {
      error: "two channels have the same name",
    },
  );
export type NotificationsConfig = z.infer<typeof NotificationsSchema>;
export type ChannelRule = Pick<WebhookConfig, "name" | "topics" | "reasons" | "except">;

export function isWanted({ topics, reasons: also, except }: ChannelRule, event: ClusterEvent): boolean {
  if (except.includes(event.reason)) return false;
  return also.includes(event.reason) || (event.type === "Warning" && topics.includes(topicOf(event)));
}

/** Events of one reason and object, told as one. */
export interface Notice {
  topic: Topic;
  type: ClusterEvent["type"];
  reason: string;
  object: string;
  /** Of the last of them. */
  message: string;
  count: number;
  first: string;
  last: string;
}

export interface Notification {
  /** The same where it is sent once more. */
  id: string;
  time: string;
  notices: Notice[];
  /** Of which there was no room for a notice of their own. */
  more: number;
  /** Events that were forgotten before they could be told. */
  missed: number;
  /** It only shows that the way there works. */
  test?: true;
}

/** How far a channel has come; all of it may be lost, and then it goes on with what is new. */
export const ChannelStateSchema = z.object({
  /** The last event that was told, or need not be. */
  after: z.number(),
  /** What was told of late, by reason and object: until when it is quiet, in ms, and what came since. */
  quiet: z.record(
    z.string(),
    z.object({
      until: z.number(),
      held: z
        .object({
          topic: z.enum(TOPIC_NAMES),
          type: z.enum(["Normal", "Warning"]),
          reason: z.string(),
          object: z.string(),
          message: z.string(),
          count: z.number(),
          first: z.string(),
          last: z.string(),
        })
        .optional(),
    }),
  ),
});
export type ChannelState = z.infer<typeof ChannelStateSchema>;

/** In one notification: a screen or two. */
export const MOST_NOTICES = 50;
/** Beyond it, what has been quiet for longest may be told again. */
const MOST_QUIET = 1000;

export interface Digest {
  notices: Notice[];
  more: number;
  missed: number;
  /** Once these are told. */
  state: ChannelState;
}

/**
 * What is to be told of events, and what of them is held back because the same was told a short time ago.
 * @param events all after `state.after` that are still known, oldest first
 * @param now as the machine's clock has it
 */
export function digestOf(
  rule: ChannelRule,
  state: ChannelState,
  events: readonly ClusterEvent[],
  { now, quietMs }: { now: number; quietMs: number },
): Digest {
  const told = new Map<string, Notice>();
  const quiet = new Map<string, ChannelState["quiet"][string]>();
  for (const [key, { until, held }] of Object.entries(state.quiet)) {
    if (until > now) quiet.set(key, { until, ...(held ? { held } : {}) });
    else if (held) told.set(key, held);
  }
  for (const event of events) {
    if (!isWanted(rule, event)) continue;
    const key = `${event.reason} ${event.object}`;
    const known = quiet.get(key);
    if (known) known.held = added(known.held, event);
    else told.set(key, added(told.get(key), event));
  }
  const all = [...told];
  for (const [key] of all) if (quietMs > 0) quiet.set(key, { until: now + quietMs });
  const kept = [...quiet].toSorted(([, a], [, b]) => b.until - a.until).slice(0, MOST_QUIET);
  const first = events[0]?.id;
  return {
    notices: all.slice(0, MOST_NOTICES).map(([, notice]) => notice),
    more: Math.max(0, all.length - MOST_NOTICES),
    missed: first === undefined ? 0 : Math.max(0, first - state.after - 1),
    state: { after: events.at(-1)?.id ?? state.after, quiet: Object.fromEntries(kept) },
  };
}

function added(before: Notice | undefined, event: ClusterEvent): Notice {
  const { type, reason, object, message, time } = event;
  const { count = 0, first = time } = before ?? {};
  return { topic: topicOf(event), type, reason, object, message, count: count + 1, first, last: time };
}
