import type { ChannelRule, ChannelState, Notification } from "../model/notification.ts";

/** A way to tell an operator something. */
export interface NotificationChannel {
  rule: ChannelRule;
  kind: "webhook" | "mail";
  /** Resolves when it was taken; bounded in time. Rejects with a reason in words that has no secret in it; it is tried again. */
  send(notification: Notification): Promise<void>;
}

/** Where it is kept how far each channel has come. */
export interface NotificationStates {
  /** By the channel's name; undefined where nothing is known, or what is there cannot be read. */
  read(channel: string): ChannelState | undefined;
  write(channel: string, state: ChannelState): void;
}
