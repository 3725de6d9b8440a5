import { createHash, randomUUID } from "node:crypto";
import type { Logger } from "pino";
import { exponential } from "../../model/backoff.ts";
import { timeText, type Clock } from "../../model/clock.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { digestOf, isWanted, type ChannelState, type Notification } from "../../model/notification.ts";
import type { NotificationChannel, NotificationStates } from "../../ports/notifications.ts";
import type { Store } from "../../ports/store.ts";
import type { ChannelStanding, NotificationService, TestResult } from "../service/notification-service.ts";
import { Rounds } from "../usage/rounds.ts";

const TURN_EVERY_MS = 5_000;
/** All that a store keeps; what one has forgotten meanwhile is said to be missing. */
const EVENTS_AT_ONCE = 10_000;
/** Channels have shorter bounds for what they wait for; together these may be many. */
const MOST_MS = 60_000;
const retryAfter = exponential(10_000, 900_000);

export interface Notifications {
  channels: readonly NotificationChannel[];
  groupSeconds: number;
  quietSeconds: number;
}

interface Course {
  state: ChannelState;
  failures: number;
  problem?: string;
  notBefore: number;
  lastSentAt?: string;
  /** Up to which event an attempt went that failed: the next one says the same under the same id. */
  upTo?: number;
}

export interface NotifierParts {
  store: Pick<Store, "listEvents">;
  states: NotificationStates;
  clock: Pick<Clock, "now" | "after">;
  log: Logger;
  /** As it is at present; undefined where there are none. */
  config(): Notifications | undefined;
}

/**
 * Tells operators of events. The store's list of events is the queue: a channel goes on after the last event that it has told, also after a
 * restart, and what it cannot tell stays there until it can, or until the store forgets it. So nothing is lost unseen, and little is told twice.
 */
export class Notifier implements NotificationService {
  readonly #parts: NotifierParts;
  readonly #rounds: Rounds;
  readonly #courses = new Map<string, Course>();

  constructor(parts: NotifierParts) {
    this.#parts = parts;
    this.#rounds = new Rounds(parts.clock, TURN_EVERY_MS, () => this.turn());
  }

  start(): void {
    this.#rounds.start();
  }

  /** Waits for what is being sent. */
  close(): Promise<void> {
    return this.#rounds.close();
  }

  /** Never rejects. */
  async turn(): Promise<void> {
    const config = this.#parts.config();
    const names = new Set(config?.channels.map(({ rule }) => rule.name));
    for (const name of this.#courses.keys()) if (!names.has(name)) this.#courses.delete(name);
    // One that does not answer must not keep the others waiting.
    await Promise.all((config?.channels ?? []).map((channel) => this.#tell(channel, config!)));
  }

  channels(): ChannelStanding[] {
    return this.#configured().channels.map(({ rule, kind }) => {
      const { failures = 0, problem, lastSentAt } = this.#courses.get(rule.name) ?? {};
      return {
        name: rule.name,
        kind,
        topics: rule.topics,
        failures,
        ...(problem === undefined ? {} : { problem }),
        ...(lastSentAt === undefined ? {} : { lastSentAt }),
      };
    });
  }

  async test(): Promise<TestResult[]> {
    const { channels } = this.#configured();
    const time = timeText(this.#parts.clock.now());
    return Promise.all(
      channels.map(async ({ rule: { name }, send }) => {
        try {
          // What happens from now on is told.
          await this.#courseOf(name);
          await bounded(send, { id: randomUUID(), time, notices: [], more: 0, missed: 0, test: true });
          return { name, ok: true, message: "it was taken" };
        } catch (error) {
          return { name, ok: false, message: messageOf(error) };
        }
      }),
    );
  }

  /** What is wrong with channels now, one sentence each. */
  problems(): string[] {
    return [...this.#courses].flatMap(([name, { problem }]) =>
      problem === undefined ? [] : [`notifications by ${name} fail: ${problem}`],
    );
  }

  async #tell(channel: NotificationChannel, config: Notifications): Promise<void> {
    const { clock, log, store } = this.#parts;
    const { rule } = channel;
    try {
      const course = await this.#courseOf(rule.name);
      const now = clock.now();
      if (now < course.notBefore) return;
      const { after } = course.state;
      const all = await store.listEvents({ after, limit: EVENTS_AT_ONCE });
      const { upTo } = course;
      const events = upTo === undefined ? all : all.filter(({ id }) => id <= upTo);
      const digest = digestOf(rule, course.state, events, { now, quietMs: config.quietSeconds * 1000 });
      if (digest.notices.length === 0) return this.#keep(rule.name, course, digest.state);
      const oldest = events.find((event) => isWanted(rule, event));
      // What is held since long ago waits for nothing.
      const age = oldest === undefined || upTo !== undefined ? Number.POSITIVE_INFINITY : now - Date.parse(oldest.time);
      if (age < config.groupSeconds * 1000) return;
      const { notices, more, missed, state } = digest;
      const id = idOf(rule.name, after, state.after);
      await this.#send(channel, course, { id, time: timeText(now), notices, more, missed }, state);
    } catch (error) {
      log.warn({ channel: rule.name, why: messageOf(error) }, "events cannot be read for notifications; tried again");
    }
  }

  async #send(
    { rule: { name }, send }: NotificationChannel,
    course: Course,
    notification: Notification,
    next: ChannelState,
  ): Promise<void> {
    const { clock, log } = this.#parts;
    try {
      await bounded(send, notification);
    } catch (error) {
      course.failures += 1;
      course.problem = messageOf(error);
      course.notBefore = clock.now() + retryAfter(course.failures);
      course.upTo = next.after;
      if (course.failures === 1) log.warn({ channel: name, why: course.problem }, "a notification is tried again");
      return;
    }
    course.failures = 0;
    course.notBefore = 0;
    course.lastSentAt = notification.time;
    delete course.problem;
    delete course.upTo;
    this.#keep(name, course, next);
  }

  #keep(name: string, course: Course, state: ChannelState): void {
    const isSame = JSON.stringify(state) === JSON.stringify(course.state);
    course.state = state;
    if (isSame) return;
    try {
      this.#parts.states.write(name, state);
    } catch (error) {
      // It goes on; after a restart something may be told twice.
      this.#parts.log.warn({ channel: name, why: messageOf(error) }, "cannot keep how far notifications have come");
    }
  }

  async #courseOf(name: string): Promise<Course> {
    const known = this.#courses.get(name);
    if (known) return known;
    const { store, states } = this.#parts;
    const [newest] = await store.listEvents({ limit: 1 });
    const last = newest?.id ?? 0;
    const kept = states.read(name);
    // A new channel is not told what was before it; nor is one whose store is an older one now.
    const state = kept && kept.after <= last ? kept : { after: last, quiet: {} };
    const course = { state, failures: 0, notBefore: 0 };
    this.#courses.set(name, course);
    if (!kept) states.write(name, state);
    return course;
  }

  #configured(): Notifications {
    const config = this.#parts.config();
    if (config && config.channels.length > 0) return config;
    throw new UserError(
      "Conflict",
      "there are no channels for notifications: name some under notifications in the configuration (docs/notifications.md)",
    );
  }
}

/** Whatever it is that does not end: the next turn waits for it. */
async function bounded(send: NotificationChannel["send"], notification: Notification): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it is not taken within ${MOST_MS / 1000} s`)), MOST_MS);
  });
  try {
    await Promise.race([send(notification), late]);
  } finally {
    clearTimeout(timer);
  }
}

function idOf(channel: string, after: number, upTo: number): string {
  return createHash("sha256")
    .update(JSON.stringify([channel, after, upTo]))
    .digest("hex")
    .slice(0, 32);
}
