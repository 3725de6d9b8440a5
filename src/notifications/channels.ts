import type { NotificationsConfig } from "../model/notification.ts";
import type { NotificationChannel } from "../ports/notifications.ts";
import { mailChannel } from "./mail.ts";
import { webhookChannel } from "./webhook.ts";

export function channelsOf({ webhooks, mail }: NotificationsConfig): NotificationChannel[] {
  return [...webhooks.map((config) => webhookChannel(config)), ...mail.map((config) => mailChannel(config))];
}
